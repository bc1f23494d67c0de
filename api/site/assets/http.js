// How a page speaks to the API: JSON with problems as errors, and Server-Sent Events that come back by themselves.

const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 10_000;
const REQUEST_MS_MAX = 15_000;
const STREAM_SILENCE_MS_MAX = 45_000;

/** The API said no; `document` is its problem (RFC 9457). */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `status ${status}`);
    this.status = status;
    this.document = document;
  }
}

/** The API gave no answer, or says to come again later; then `document` is its problem. */
export class Away extends Error {
  constructor(reason, retryAfterSeconds = null, document = null) {
    super(reason);
    this.retryAfterSeconds = retryAfterSeconds;
    this.document = document;
  }
}

/** Milliseconds until try number `attempt` (from 0): twice as long each time, with jitter, and not before Retry-After. */
export function pauseMs(attempt, retryAfterSeconds = null) {
  const backoff = Math.min(PAUSE_MS_MIN * 2 ** attempt, PAUSE_MS_MAX);
  return Math.max((retryAfterSeconds ?? 0) * 1000, backoff * (0.5 + Math.random() / 2));
}

/** Waits so long; ends at once when the machine is online again, or when `signal` says so. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    addEventListener("online", end);
    signal?.addEventListener("abort", end);
  });
}

/** A new Idempotency-Key. `crypto.randomUUID` exists on secure origins only, this everywhere. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Speaks to the API as whoever `credential()` names: an API key, a customer's token, or null for nobody. */
export class Api {
  constructor(credential = () => null) {
    this.credential = credential;
  }

  /**
   * One request. Gives `{ status, body, headers }`; `body` is null for 204 and 304.
   * Throws Problem if the API refuses, Away if it can't be reached or asks to come again later.
   */
  async call(method, path, { body, headers = {}, signal } = {}) {
    const timeout = AbortSignal.timeout(REQUEST_MS_MAX);
    const response = await this.#fetch(path, {
      method,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    if (response.status === 204 || response.status === 304) {
      return { status: response.status, body: null, headers: response.headers };
    }
    if (!response.ok) throw await refusal(response);
    try {
      return { status: response.status, body: await response.json(), headers: response.headers };
    } catch (error) {
      throw new Away(`the answer broke off: ${error.message}`);
    }
  }

  /**
   * Server-Sent Events for as long as they are wanted. Calls `onEvent({ event, id, data })` for each, and `onLost(error)`
   * when the stream is lost; it then comes back by itself with `Last-Event-ID`. `onEvent` gives true to end it.
   * Throws Problem if the API refuses the stream for good, and Away where `comesBack(error)` is false.
   */
  async follow(path, { onEvent, onLost = () => {}, onOpen = () => {}, comesBack = () => true, signal }) {
    let lastEventId = null;
    let attempt = 0;
    while (!signal?.aborted) {
      let wait = null;
      try {
        for await (const told of this.#events(path, lastEventId, signal, onOpen)) {
          attempt = 0;
          lastEventId = told.id || lastEventId;
          if (onEvent(told)) return;
        }
      } catch (error) {
        if (signal?.aborted) return;
        if (!(error instanceof Away) || !comesBack(error)) throw error;
        onLost(error);
        wait = error.retryAfterSeconds;
      }
      await pause(pauseMs(attempt, wait), signal);
      attempt += 1;
    }
  }

  async *#events(path, lastEventId, signal, onOpen) {
    const silence = new AbortController();
    const headers = { Accept: "text/event-stream", ...(lastEventId ? { "Last-Event-ID": lastEventId } : {}) };
    const both = signal ? AbortSignal.any([signal, silence.signal]) : silence.signal;
    let timer = setTimeout(() => silence.abort(), STREAM_SILENCE_MS_MAX);
    try {
      const response = await this.#fetch(path, { headers, signal: both });
      if (!response.ok) throw await refusal(response);
      onOpen();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      while (true) {
        const { value, done } = await reader.read().catch((error) => {
          throw new Away(`the stream broke off: ${error.message}`);
        });
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), STREAM_SILENCE_MS_MAX);
        const parts = (text + value).split("\n\n");
        text = parts.pop();
        for (const part of parts) {
          const told = readEvent(part);
          if (told) yield told;
        }
      }
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }

  async #fetch(path, options) {
    const credential = this.credential();
    const headers = credential ? { ...options.headers, Authorization: `Bearer ${credential}` } : options.headers;
    try {
      return await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" });
    } catch (error) {
      throw new Away(error.message);
    }
  }
}

async function refusal(response) {
  const document = await response.json().catch(() => ({}));
  const wait = Number(response.headers.get("Retry-After"));
  const retryAfterSeconds = Number.isFinite(wait) && wait > 0 ? wait : null;
  if (response.status === 429 || response.status >= 500) {
    return new Away(document.detail || `status ${response.status}`, retryAfterSeconds, document);
  }
  return new Problem(response.status, document);
}

/** One event of a stream, or null if it is a comment. */
function readEvent(part) {
  const told = { event: "message", id: null, data: null };
  for (const line of part.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") told.data = (told.data === null ? "" : `${told.data}\n`) + value;
    else if (name === "event" || name === "id") told[name] = value;
  }
  if (told.data === null) return null;
  return { ...told, data: JSON.parse(told.data) };
}
