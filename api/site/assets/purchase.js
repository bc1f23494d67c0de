// A purchase: written down in this browser before it is sent, so that whatever breaks, it is made once.
//
// The record has the Idempotency-Key of the booking and, if it is given back, that of the cancellation. A page that
// is loaded again, or loses its connection, sends the same command with the same key, which is the same job.

import { Away, Problem, newKey, pause, pauseMs } from "/assets/http.js";

const NOT_FOUND = 404;
const POLL_SECONDS = 2;

export class Purchase {
  /**
   * `onChange({ step, job, error })` tells how it goes: step is sending, waiting, done, cancelling, cancelled, refused
   * (a problem before there was a job), or away (no answer; it is tried again).
   */
  constructor(api, eventId, storage, onChange) {
    this.api = api;
    this.eventId = eventId;
    this.storage = storage;
    this.isWatched = true;
    this.name = `onsale.purchase.${eventId}`;
    this.onChange = onChange;
    this.running = null;
    this.record = this.#read();
  }

  /** Writes down what is wanted, then gets it. */
  begin(userId, ticketCount) {
    this.#write({ userId, ticketCount, key: newKey(), sentAt: new Date().toISOString() });
    return this.run();
  }

  /** Writes down that the booking is to be given back, then gives it back. */
  cancel() {
    this.#write({ ...this.record, cancelKey: this.record.cancelKey ?? newKey() });
    return this.run();
  }

  /** Leaves the line. Whether that came in time is told by what becomes of the job. */
  async leave() {
    const id = this.record.jobId;
    if (id) await this.#ask("DELETE", `/jobs/${id}`, {}).catch(ignoreProblem);
  }

  /** Forgets the purchase, so that another can be made. */
  forget() {
    this.running?.abort();
    this.record = null;
    this.storage.removeItem(this.name);
  }

  /** Takes the record as another tab has left it. */
  readAgain() {
    this.running?.abort();
    this.record = this.#read();
  }

  /** Whether somebody looks at the page. While nobody does, the job is asked for now and then, without a stream. */
  watch(isWatched) {
    this.isWatched = isWatched;
    if (this.record && !this.isOver) this.run();
  }

  /** Whether there is nothing left to happen. */
  get isOver() {
    return Boolean(this.record?.cancelKey ? this.record.cancelJob : this.record?.job);
  }

  /** Goes on from wherever the record is. */
  async run() {
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    try {
      await this.#run(running.signal);
    } catch (error) {
      if (running.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.onChange({ step: "refused", error: error.document, status: error.status });
    }
  }

  async #run(signal) {
    const { userId, ticketCount } = this.record;
    const booked = await this.#settle("job", signal, (key) =>
      this.#ask("POST", `/events/${this.eventId}/bookings`, {
        body: { user_id: userId, ticket_count: ticketCount },
        headers: { "Idempotency-Key": key },
        signal,
      }),
    );
    if (!booked) return;
    if (!this.record.cancelKey) {
      this.onChange({ step: "done", job: booked });
      return;
    }
    const cancelled = await this.#settle("cancel", signal, (key) =>
      this.#ask("DELETE", `/bookings/${booked.booking_id}`, { headers: { "Idempotency-Key": key }, signal }),
    );
    if (cancelled) this.onChange({ step: "cancelled", job: cancelled });
  }

  /** Sends a command, unless it was sent, and follows its job to the end; gives the job. */
  async #settle(what, signal, send) {
    const [keyName, idName, jobName] = what === "job" ? ["key", "jobId", "job"] : ["cancelKey", "cancelId", "cancelJob"];
    const waiting = what === "job" ? "waiting" : "cancelling";
    while (!signal.aborted) {
      if (this.record[jobName]) return this.record[jobName];
      if (!this.record[idName]) {
        this.onChange({ step: what === "job" ? "sending" : "cancelling" });
        const job = await send(this.record[keyName]);
        if (signal.aborted) return null;
        this.#write({ ...this.record, [idName]: job.id, firstAhead: job.ahead });
      }
      const done = await this.#follow(this.record[idName], waiting, signal);
      if (signal.aborted) return null;
      // A job that is not known any more was lost with its server: the same key sends it again, once.
      this.#write(done ? { ...this.record, [jobName]: done } : { ...this.record, [idName]: null });
    }
    return null;
  }

  /** Follows a job until it is done; gives it, or null if it is unknown. */
  async #follow(id, step, signal) {
    let done = null;
    const tell = (job) => {
      if (job.done) done = job;
      else this.onChange({ step, job });
      return job.done;
    };
    // A browser has six connections to a place: streams of pages that nobody sees would use them up.
    if (!this.isWatched) return this.#poll(id, tell, signal);
    try {
      await this.api.follow(`/jobs/${id}/events`, {
        signal,
        onEvent: ({ data }) => tell(data),
        onLost: (error) => this.#lost(error),
        comesBack: (error) => error.document === null,
      });
    } catch (error) {
      if (error instanceof Problem && error.status === NOT_FOUND) return null;
      if (!(error instanceof Away)) throw error;
      // As many streams are open as the API serves; asking now and then is always possible.
      return this.#poll(id, tell, signal);
    }
    return done;
  }

  async #poll(id, tell, signal) {
    while (!signal.aborted) {
      try {
        const job = await this.#ask("GET", `/jobs/${id}`, { signal });
        if (tell(job)) return job;
      } catch (error) {
        if (error instanceof Problem && error.status === NOT_FOUND) return null;
        throw error;
      }
      await pause(POLL_SECONDS * 1000 * (0.5 + Math.random()), signal);
    }
    return null;
  }

  /** A request that is made until it is answered. */
  async #ask(method, path, options) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return (await this.api.call(method, path, options)).body;
      } catch (error) {
        if (!(error instanceof Away) || options.signal?.aborted) throw error;
        this.#lost(error);
        await pause(pauseMs(attempt, error.retryAfterSeconds), options.signal);
      }
    }
  }

  #lost(error) {
    this.onChange({ step: "away", error: error.document });
  }

  #read() {
    try {
      return JSON.parse(this.storage.getItem(this.name));
    } catch {
      return null;
    }
  }

  #write(record) {
    this.record = record;
    this.storage.setItem(this.name, JSON.stringify(record));
  }
}

function ignoreProblem(error) {
  // It was too late to leave the line: the stream of the job tells what became of it.
  if (!(error instanceof Problem)) throw error;
}
