// Asks the server how it is, every few seconds while the page is seen, and shows the answers.

import { getText } from "./api.js";
import { Gauge } from "./chart.js";
import { byId } from "./dom.js";
import { readMetrics } from "./exposition.js";
import * as figures from "./figures.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 5000;

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

export class Pulse {
  #rate = new Gauge("Tokens/s", 10, (value) => value.toFixed(value < 10 ? 1 : 0));
  #requests = new Gauge("Requests", 4, String);
  #cache = new Gauge("KV cache", 0.01, percent);
  #last = null;
  #timer = null;

  /** cameBack: called when the server answers after it did not, and at the first time. */
  constructor(cameBack) {
    this.cameBack = cameBack;
    this.up = false;
    byId("pulse").append(this.#rate.root, this.#requests.root, this.#cache.root);
    document.addEventListener("visibilitychange", () => this.#beat());
    this.#beat();
  }

  async #beat() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    try {
      await getText("health", AbortSignal.timeout(PATIENCE_MS));
      this.#take(readMetrics(await getText("metrics", AbortSignal.timeout(PATIENCE_MS))));
      this.#tell("ready", "ready");
      if (!this.up) this.cameBack();
      this.up = true;
    } catch (error) {
      this.#take(new Map());
      this.#tell("gone", error.status ? "unhealthy" : "no connection");
      this.up = false;
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#beat(), EVERY_MS);
  }

  #take(values) {
    const at = performance.now() / 1000;
    this.#rate.add(at, this.#rateSince(at, figures.tokens(values)));
    const requests = figures.requests(values);
    this.#requests.add(at, requests && requests.running + requests.waiting, requests ? waiting(requests) : "");
    const cache = figures.cache(values);
    const kept = cache?.kept >= 0.0005 ? `+ ${percent(cache.kept)} reusable` : "";
    this.#cache.add(at, cache && cache.share, kept);
  }

  /** Tokens a second since the last answer; a server that began anew has counted from 0. */
  #rateSince(at, count) {
    const last = this.#last;
    this.#last = count === null ? null : { at, count };
    if (count === null || !last) return null;
    return Math.max(count < last.count ? count : count - last.count, 0) / (at - last.at);
  }

  #tell(state, text) {
    const status = byId("status");
    if (status.dataset.state === state && status.textContent === text) return;
    status.dataset.state = state;
    status.textContent = text;
  }
}

const waiting = ({ running, waiting }) => (waiting ? `${waiting} waiting` : "");
