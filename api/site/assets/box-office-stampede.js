// The test stampede of demo mode: made-up buyers who book over the API as everybody does, a bounded number at a time.

import { Away, Problem } from "/assets/http.js";
import { count } from "/assets/sale-state.js";

const BUYERS_MAX = 2_000;
// A browser opens six connections to one server over HTTP/1.1; the box office itself needs one.
const AT_ONCE = 5;
const AGAIN_EVERY = 9;
const CANCEL_EVERY = 25;
const UNANSWERED_MAX = 20;
const element = (id) => document.getElementById(id);

/** Sends `buyers` of them to the event; `onStep` is told how far it is. Ends early where `signal` or the API says so. */
async function stampede(api, eventId, buyers, onStep, signal) {
  const run = Date.now().toString(36);
  const told = { sent: 0, accepted: 0, turnedAway: 0, unanswered: 0 };
  const lane = async () => {
    while (told.sent < buyers && !signal.aborted && told.unanswered < UNANSWERED_MAX) {
      told.sent += 1;
      await sendOne(api, eventId, run, told.sent, told, signal);
      onStep(told);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return told;
}

/** Most buyers come once; some come again and want too much, some cancel what they have just asked for. */
async function sendOne(api, eventId, run, number, told, signal) {
  const who = number % AGAIN_EVERY === 0 ? number - 3 : number;
  const body = { user_id: `demo-${run}-${who}`, ticket_count: 1 + (who % 2) };
  try {
    const { body: job } = await api.call("POST", `/events/${eventId}/bookings`, { body, signal });
    told.accepted += 1;
    told.unanswered = 0;
    if (number % CANCEL_EVERY === 0) await cancel(api, job.booking_id, signal);
  } catch (error) {
    if (signal.aborted) return;
    told.turnedAway += 1;
    if (error instanceof Away && !error.document) told.unanswered += 1;
  }
}

/** Who got no ticket has nothing to cancel, and who is not heard keeps theirs. */
async function cancel(api, bookingId, signal) {
  try {
    await api.call("DELETE", `/bookings/${bookingId}`, { signal });
  } catch (error) {
    if (!(error instanceof Problem || error instanceof Away)) throw error;
  }
}

export function connectStampede({ api, eventId, say }) {
  let stopping = null;
  element("stampede-stop").addEventListener("click", () => stopping?.abort());
  element("stampede-form").addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const buyers = Math.min(Number(element("buyers").value), BUYERS_MAX);
    stopping = new AbortController();
    setRunning(true);
    const began = performance.now();
    const told = await stampede(api, eventId, buyers, (step) => showStep(step, buyers), stopping.signal);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const text = `${count(told.sent)} sent in ${seconds} s: ${count(told.accepted)} got a place in line, ${count(told.turnedAway)} were turned away.`;
    element("stampede-text").textContent = text;
    say(text);
    setRunning(false);
  });
}

function setRunning(isRunning) {
  element("stampede-send").hidden = isRunning;
  element("stampede-stop").hidden = !isRunning;
  element("buyers").disabled = isRunning;
  element(isRunning ? "stampede-stop" : "stampede-send").focus();
}

function showStep({ sent, accepted }, buyers) {
  element("stampede-meter").style.setProperty("--share", sent / buyers);
  element("stampede-text").textContent = `${count(sent)} of ${count(buyers)} sent, ${count(accepted)} in line.`;
}
