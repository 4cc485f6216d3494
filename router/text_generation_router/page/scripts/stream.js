// Runs a generation on one of OpenAI's routes, and tells of it in one shape for both. Knows no page.

import { ApiError, errorIn, post } from "./api.js";
import { events } from "./events.js";

/** How many alternatives of each token are asked for. */
const ALTERNATIVES = 5;

/** The two routes: where they are, how they are asked for log-probabilities, and where a choice has its text. */
export const CHAT = {
  path: "v1/chat/completions",
  wish: { logprobs: true, top_logprobs: ALTERNATIVES },
  text: (choice) => choice.delta?.content ?? "",
  tokens: (logprobs) =>
    (logprobs.content ?? []).map((each) => token(each.token, each.logprob, each.top_logprobs.map(pair))),
};
export const COMPLETION = {
  path: "v1/completions",
  wish: { logprobs: ALTERNATIVES },
  text: (choice) => choice.text ?? "",
  tokens: (logprobs) =>
    logprobs.tokens.map((text, i) =>
      token(text, logprobs.token_logprobs[i], Object.entries(logprobs.top_logprobs?.[i] ?? {})),
    ),
};

/** The body that `generate` sends. */
export const bodyFor = (route, asked) => ({
  ...asked,
  ...route.wish,
  stream: true,
  stream_options: { include_usage: true },
});

/**
 * Yields { text, tokens, reason, usage } for each chunk, where reason and usage are null until known.
 * A token is { text, probability, alternatives: [{ text, probability }] }, likeliest first. Throws ApiError.
 */
export async function* generate(route, asked, signal) {
  const answer = await post(route.path, bodyFor(route, asked), signal);
  let ended = false;
  try {
    for await (const data of events(answer)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw errorIn(data, 500);
      const [choice] = chunk.choices;
      ended ||= Boolean(choice?.finish_reason);
      yield {
        text: choice ? route.text(choice) : "",
        tokens: choice?.logprobs ? route.tokens(choice.logprobs) : [],
        reason: choice?.finish_reason ?? null,
        usage: chunk.usage ?? null,
      };
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError("The connection broke while the answer came.", 0);
  }
  if (!ended) throw new ApiError("The answer ended before its last token.", 0);
}

const pair = (each) => [each.token, each.logprob];

function token(text, logprob, alternatives) {
  const others = alternatives.map(([word, value]) => ({ text: word, probability: Math.exp(value) }));
  if (!others.some((other) => other.text === text)) others.push({ text, probability: Math.exp(logprob) });
  others.sort((one, two) => two.probability - one.probability);
  return { text, probability: Math.exp(logprob), alternatives: others };
}
