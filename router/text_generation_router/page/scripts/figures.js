// Which metrics make the live figures, where a server may have one or the other. Knows not how they are shown.

const TOKENS = [
  // Each token that is sent is in one of the two: the first of its request, or a later one.
  ["tgi_request_time_to_first_token_duration_count", "tgi_request_inter_token_duration_count"],
  ["tgi_request_generated_tokens_sum"], // known when a request ends
];
const CACHE = [
  ["tgi_cache_blocks_used", "tgi_cache_blocks"],
  ["tgi_batch_current_max_tokens", "tgi_batch_max_total_tokens"],
];

/** The first of several groups of names that a server has all of. */
const known = (values, groups) => groups.find((names) => names.every((name) => values.has(name)));

/** Tokens sent so far, or null. */
export function tokens(values) {
  const names = known(values, TOKENS);
  return names ? names.reduce((sum, name) => sum + values.get(name), 0) : null;
}

/** { running, waiting } requests, or null. */
export function requests(values) {
  const [running, waiting] = [values.get("tgi_batch_current_size"), values.get("tgi_queue_size")];
  return running === undefined ? null : { running, waiting: waiting ?? 0 };
}

/** { share, kept } of the cache: what requests hold, and what only keeps prompts; kept is null where that is not told. */
export function cache(values) {
  const names = known(values, CACHE);
  if (!names) return null;
  const [used, all] = names.map((name) => values.get(name));
  const kept = values.get("tgi_cache_blocks_cached");
  return all ? { share: used / all, kept: kept === undefined ? null : kept / all } : null;
}
