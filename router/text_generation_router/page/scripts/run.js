// One generation at a time, from the click to the last token: its turn, its button, its times. Knows chats from
// completions only by their route.

import { address } from "./api.js";
import { announce } from "./dom.js";
import { follow } from "./follow.js";
import { bodyFor, generate } from "./stream.js";
import { Turn } from "./turn.js";

const REASONS = { stop: "ended by itself", length: "reached the most tokens" };

export class Run {
  #abort = null;

  /** button: which starts, and stops what runs. failed: called with the ApiError, if one ends it. */
  constructor(route, button, failed) {
    this.route = route;
    this.button = button;
    this.failed = failed;
    this.label = button.textContent;
  }

  get busy() {
    return this.#abort !== null;
  }

  stop() {
    this.#abort?.abort();
  }

  /** Put the answer to `asked` at the end of `parent`. The turn if there is an answer, else null. */
  async start(parent, asked, retry) {
    parent.querySelectorAll(".problem button").forEach((button) => button.remove());
    const turn = new Turn(parent, "assistant", asked.model);
    const clock = new Clock();
    this.#abort = new AbortController();
    this.#show();
    const settle = follow(turn.root);
    try {
      const last = await this.#read(turn, asked, clock);
      turn.end(clock.facts(last), curl(this.route, asked));
      announce(`The answer is complete: ${clock.count} tokens.`);
      return turn;
    } catch (error) {
      if (error.name === "AbortError") {
        turn.end(["stopped", ...clock.facts({})], curl(this.route, asked));
        return turn.text ? turn : null;
      }
      turn.fail(error, () => {
        turn.remove();
        retry();
      });
      this.failed(error);
      return null;
    } finally {
      settle();
      this.#abort = null;
      this.#show();
    }
  }

  async #read(turn, asked, clock) {
    const last = {};
    for await (const { text, tokens, reason, usage } of generate(this.route, asked, this.#abort.signal)) {
      clock.tick(tokens.length || (text ? 1 : 0));
      turn.add(text, tokens);
      last.reason = reason ?? last.reason;
      last.usage = usage ?? last.usage;
    }
    return last;
  }

  #show() {
    this.button.textContent = this.busy ? "Stop" : this.label;
    this.button.toggleAttribute("data-busy", this.busy);
  }
}

/** Counts tokens, and the seconds to the first and from there to the last. */
class Clock {
  count = 0;
  #began = performance.now();
  #first = null;
  #last = null;

  tick(tokens) {
    if (!tokens) return;
    this.#last = performance.now();
    this.#first ??= this.#last;
    this.count += tokens;
  }

  facts({ reason, usage }) {
    const made = usage?.completion_tokens ?? this.count;
    const facts = [usage ? `${usage.prompt_tokens} tokens in, ${made} out` : `${made} tokens`];
    if (this.#first !== null) facts.push(`first after ${((this.#first - this.#began) / 1000).toFixed(2)} s`);
    const seconds = (this.#last - this.#first) / 1000;
    if (this.count > 1 && seconds > 0) facts.push(`${((this.count - 1) / seconds).toFixed(1)} tokens/s`);
    if (reason) facts.push(REASONS[reason] ?? reason);
    return facts;
  }
}

/** The same request for a terminal; the key is the reader's business. */
function curl(route, asked) {
  const body = JSON.stringify(bodyFor(route, asked), null, 1).replaceAll("'", "'\\''");
  return `curl -N ${address(route.path)} -H 'Content-Type: application/json' -d '${body}'`;
}
