// What an organiser does from the box office: open and close sales, change the total, add an event.

import { Away, Problem, newKey, pause, pauseMs } from "/assets/http.js";
import { count, lengthInWords, tickets } from "/assets/sale-state.js";

const SEND_TRIES_MAX = 4;
const element = (id) => document.getElementById(id);

/** A whole number as people type it, with or without separators; NaN if it is none. */
function wholeNumber(text) {
  const digits = text.replace(/[\s,.’']/g, "");
  return /^\d+$/.test(digits) ? Number(digits) : NaN;
}

/** Says what becomes of the command that was sent last. */
function tell(text, look) {
  element("command").hidden = false;
  element("command").className = `notice ${look}`;
  element("command-text").textContent = text;
}

/** The same key each time, so that a command whose answer was lost is not made twice. */
async function send(api, path, body) {
  const headers = { "Idempotency-Key": newKey() };
  for (let attempt = 0; ; attempt += 1) {
    try {
      return (await api.call("PATCH", path, { body, headers })).body;
    } catch (error) {
      if (!(error instanceof Away) || attempt + 1 >= SEND_TRIES_MAX) throw error;
      tell("Onsale does not answer. Sending it again…", "notice-warn");
      await pause(pauseMs(attempt, error.retryAfterSeconds));
    }
  }
}

function waitingText(doing, job) {
  const ahead = job.ahead ? `${count(job.ahead)} before it in line` : "its turn is next";
  const estimate = job.estimated_wait_seconds;
  return `${doing}: ${ahead}${estimate === null ? "" : `, ${lengthInWords(estimate)} to go`}.`;
}

/** Puts a change in line and follows it to its end. `doing` and `done` are how that is told. */
async function change(api, say, eventId, body, doing, done) {
  const buttons = ["open-sales", "close-sales", "change-total"].map(element);
  for (const button of buttons) button.disabled = true;
  tell(`${doing}…`, "");
  say(`${doing}.`);
  try {
    let job = await send(api, `/events/${eventId}`, body);
    await api.follow(`/jobs/${job.id}/events`, {
      onEvent: ({ data }) => {
        job = data;
        if (!job.done) tell(waitingText(doing, job), "");
        return job.done;
      },
      onLost: () => tell(`${doing}: it has its place in line. The connection is lost; asking again…`, "notice-warn"),
    });
    if (job.status !== "succeeded") throw new Problem(job.error.status, job.error);
    tell(`${done} It was number ${count(job.position)} in line.`, "notice-good");
    say(done);
  } catch (error) {
    const text = error instanceof Away ? "No answer came, so it may be in line or not. Look at the sale before you try again." : `Not done. ${error.message}`;
    tell(text, "notice-bad");
    say(text);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

function refuse(input, error, text) {
  error.textContent = text;
  input.toggleAttribute("aria-invalid", false);
  if (text) input.setAttribute("aria-invalid", "true");
}

/** Dialogs close by their buttons, by Escape, and where they were submitted well; `submit` gives whether that was so. */
function onSubmit(dialog, submit) {
  dialog.querySelector("[data-dismiss]").addEventListener("click", () => dialog.close());
  dialog.querySelector("form").addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    if (await submit()) dialog.close();
  });
}

/** Makes the buttons do what they say. `current()` is the newest snapshot; `say` speaks to screen readers. */
export function connectActions({ api, eventId, current, say }) {
  element("open-sales").addEventListener("click", () =>
    change(api, say, eventId, { sales_closed: false }, "Opening sales", "Sales are open."),
  );
  element("close-sales").addEventListener("click", () => element("close-dialog").showModal());
  onSubmit(element("close-dialog"), () => {
    change(api, say, eventId, { sales_closed: true }, "Closing sales", "Sales are closed.");
    return true;
  });
  element("change-total").addEventListener("click", () => openTotal(current()));
  onSubmit(element("total-dialog"), () => submitTotal(api, say, eventId));
  for (const button of [element("add"), ...document.querySelectorAll("[data-add]")]) {
    button.addEventListener("click", () => element("add-dialog").showModal());
  }
  onSubmit(element("add-dialog"), () => submitEvent(api));
  for (const id of ["total", ...Object.values(EVENT_FIELDS)]) {
    element(id).addEventListener("input", () => refuse(element(id), element(`${id}-error`), ""));
  }
}

function openTotal(snapshot) {
  element("total").value = snapshot.event.total_tickets;
  element("total-hint").textContent = `${tickets(snapshot.sold_tickets)} sold so far: the total can’t go below that.`;
  refuse(element("total"), element("total-error"), "");
  element("total-dialog").showModal();
  element("total").select();
}

function submitTotal(api, say, eventId) {
  const total = wholeNumber(element("total").value);
  const isWrong = !(total >= 1);
  refuse(element("total"), element("total-error"), isWrong ? "Write a whole number, 1 at least." : "");
  if (isWrong) {
    element("total").focus();
    return false;
  }
  change(api, say, eventId, { total_tickets: total }, `Changing the total to ${count(total)}`, `There are ${tickets(total)} in all now.`);
  return true;
}

const EVENT_FIELDS = { name: "new-name", total_tickets: "new-total", max_tickets_per_user: "new-limit", sales_open_at: "new-opens" };

/** What the form says, as the API wants it; what is left empty is left to the API. */
function newEvent() {
  const opens = element("new-opens").value;
  const limit = element("new-limit").value.trim();
  return {
    name: element("new-name").value.trim(),
    total_tickets: numberOrText(element("new-total").value),
    ...(limit ? { max_tickets_per_user: numberOrText(limit) } : {}),
    ...(opens ? { sales_open_at: new Date(opens).toISOString() } : {}),
  };
}

function numberOrText(text) {
  const number = wholeNumber(text);
  return Number.isNaN(number) ? text : number;
}

/** What is plainly wrong with the form, by field; the rest the API knows best. */
function wrongFields({ name, total_tickets: total, max_tickets_per_user: limit }) {
  return [
    ...(name ? [] : [{ field: "name", message: "Say what it is called." }]),
    ...(total >= 1 ? [] : [{ field: "total_tickets", message: "Write a whole number, 1 at least." }]),
    ...(limit === undefined || limit >= 1 ? [] : [{ field: "max_tickets_per_user", message: "Write a whole number, 1 at least." }]),
  ];
}

async function submitEvent(api) {
  for (const id of Object.values(EVENT_FIELDS)) refuse(element(id), element(`${id}-error`), "");
  element("add-error").textContent = "";
  const wrong = wrongFields(newEvent());
  if (wrong.length) return showWrong(wrong);
  const button = element("add-dialog").querySelector("form .button");
  button.disabled = true;
  try {
    const { body } = await api.call("POST", "/events", { body: newEvent() });
    location.assign(`/box-office/${body.id}`);
    return true;
  } catch (error) {
    return showRefusal(error);
  } finally {
    button.disabled = false;
  }
}

function showRefusal(error) {
  const wrong = (error.document?.errors ?? []).filter(({ field }) => field in EVENT_FIELDS);
  if (wrong.length) return showWrong(wrong);
  if (error instanceof Problem) element("add-error").textContent = error.message;
  else element("add-error").textContent = "Onsale did not answer, so the event may have been added or not. Look at the list of events before you try again.";
  return false;
}

function showWrong(wrong) {
  for (const { field, message } of wrong) refuse(element(EVENT_FIELDS[field]), element(`${EVENT_FIELDS[field]}-error`), message);
  element(EVENT_FIELDS[wrong[0].field]).focus();
  return false;
}
