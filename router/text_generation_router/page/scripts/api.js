// Requests to the server that sent this page, wherever it is mounted. Knows the key, and how errors are told.

const KEY = "kvrun-api-key";

/** What the server refused, or that it could not be reached: then `status` is 0. field: of the body, if one is to blame. */
export class ApiError extends Error {
  constructor(message, status, field = null) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

export const key = () => sessionStorage.getItem(KEY) ?? "";

export function setKey(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

/** The answer's text. Throws ApiError. */
export async function getText(path, signal) {
  return (await send(path, { signal })).text();
}

/** The Response to a JSON body, to be read as it comes. Throws ApiError, or AbortError when the signal says so. */
export function post(path, body, signal) {
  return send(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

/** Where a route is. */
export const address = (path) => new URL(path, document.baseURI).href;

async function send(path, options) {
  const headers = key() ? { ...options.headers, authorization: `Bearer ${key()}` } : options.headers;
  let answer;
  try {
    answer = await fetch(address(path), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it still running?", 0);
  }
  if (answer.ok) return answer;
  throw errorIn(await answer.text(), answer.status);
}

/** The error in a body, of OpenAI's shape or of the native routes'; or whatever text it is. */
export function errorIn(text, status) {
  let told = null;
  try {
    told = JSON.parse(text).error;
  } catch {
    // a proxy's page, or nothing
  }
  if (typeof told === "string") return new ApiError(told, status);
  if (told?.message) return new ApiError(told.message, told.http_status_code ?? status, told.param);
  return new ApiError(text.slice(0, 300) || `The server answered ${status}, without a word.`, status);
}
