// The buyer's view: what is on, a place in line as it moves, the ticket.

import { dropToken, rememberUser, rememberedUser, takeToken, userOf } from "/assets/customer.js";
import { Api, Away, Problem } from "/assets/http.js";
import { Purchase } from "/assets/purchase.js";
import { count, lengthInWords, saleState, tickets, timeInWords } from "/assets/sale-state.js";

const UNAUTHENTICATED = 401;
const LOOK_SECONDS = 5;
const ANNOUNCE_MS = 10_000;
const USER_LENGTH_MAX = 128;

const page = document.documentElement.dataset;
const asksWhoCalls = page.auth === "required";
const eventId = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const token = takeToken();
const element = (id) => document.getElementById(id);
const views = [...document.querySelectorAll("[id^='view-']")];

const api = new Api(() => token);
const purchase = new Purchase(api, eventId, localStorage, changed);
const user = asksWhoCalls ? token && userOf(token) : null;

let event = null;
let etag = null;
let clockAheadMs = 0;
let announcedAt = 0;
let isAway = { looking: false, buying: false };

// Views

/** Shows one view. Its heading gets the focus when it follows upon something, so that it is read out. */
function show(name, { focus = true } = {}) {
  const wanted = element(`view-${name}`);
  if (!wanted.hidden) return;
  const isFirst = !element("view-loading").hidden;
  for (const view of views) view.hidden = view !== wanted;
  if (focus && !isFirst) wanted.querySelector("h2")?.focus();
}

function text(id, value) {
  if (element(id).textContent !== value) element(id).textContent = value;
}

function announce(value, { atOnce = false } = {}) {
  if (!atOnce && Date.now() - announcedAt < ANNOUNCE_MS) return;
  announcedAt = Date.now();
  text("told", value);
}

function showAway(change, reason) {
  isAway = { ...isAway, ...change };
  const wasHidden = element("away").hidden;
  element("away").hidden = !isAway.looking && !isAway.buying;
  if (element("away").hidden) return;
  const kept = purchase.record && !purchase.record.job ? " Your place in line is safe." : "";
  const words = navigator.onLine
    ? `The ticket service can’t be reached${reason ? ` (${reason})` : ""}. Trying again…`
    : "You are offline. Trying again as soon as you are back…";
  text("away-text", words + kept);
  if (wasHidden) announce(words + kept, { atOnce: true });
}

// The event

async function look() {
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const answer = await api.call("GET", `/events/${encodeURIComponent(eventId)}`, { headers });
    showAway({ looking: false });
    if (answer.body) {
      event = answer.body;
      etag = answer.headers.get("ETag");
      const date = Date.parse(answer.headers.get("Date") ?? "");
      if (Number.isFinite(date)) clockAheadMs = date - Date.now();
      showEvent();
    }
  } catch (error) {
    if (error instanceof Away) showAway({ looking: true }, error.document?.title);
    else if (!(error instanceof Problem)) throw error;
    else if (error.status === UNAUTHENTICATED) signInAgain();
    else if (!event) show("missing");
  }
}

function showEvent() {
  document.title = `${event.name} – tickets`;
  element("event-state-row").hidden = false;
  text("event-name", event.name);
  const state = saleState(event, now());
  element("event-state").className = `badge ${state.badge}`;
  text("event-state", state.label);
  element("availability").hidden = state.name === "not-open";
  text("left-count", tickets(event.available_tickets));
  text("left-text", `of ${count(event.total_tickets)} left`);
  element("left-meter").style.setProperty("--share", event.available_tickets / event.total_tickets);
  if (!purchase.record) showSale(state);
}

function showSale(state) {
  if (asksWhoCalls && !user) return signInAgain();
  if (state.name === "not-open") return showCountdown();
  if (state.name === "closed") return showClosed("Sales are closed", "The organiser has closed the sales of this event.");
  if (state.name === "sold-out") {
    return showClosed("Sold out", "All tickets are sold. When one is returned it is on sale again at once: this page watches for it.");
  }
  element("user-field").hidden = asksWhoCalls;
  text("limit-text", `At most ${tickets(event.max_tickets_per_user)} for each buyer.`);
  showChoices(Math.min(Number(page.ticketsMax), event.max_tickets_per_user));
  show("buy", { focus: false });
}

function showClosed(title, words) {
  text("closed-title", title);
  text("closed-text", words);
  show("closed", { focus: false });
}

function showCountdown() {
  const seconds = Math.max(0, Math.ceil((Date.parse(event.sales_open_at) - now()) / 1000));
  text("opens-at", timeInWords(event.sales_open_at));
  text("countdown", clock(seconds));
  show("later", { focus: false });
}

function clock(seconds) {
  const days = Math.floor(seconds / 86400);
  const parts = [Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
  return (days ? `${days} d ` : "") + parts.map((part) => String(part).padStart(2, "0")).join(":");
}

function showChoices(most) {
  if (element("choices").children.length === most) return;
  element("choices").replaceChildren(...Array.from({ length: most }, (_, index) => choice(index + 1)));
}

function choice(number) {
  const box = document.createElement("div");
  box.className = "choice";
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: "tickets", id: `tickets-${number}`, value: String(number), checked: number === 1 });
  const label = document.createElement("label");
  label.htmlFor = input.id;
  const figure = document.createElement("b");
  figure.textContent = String(number);
  const words = document.createElement("span");
  words.className = "quiet";
  words.textContent = number === 1 ? "ticket" : "tickets";
  label.append(figure, " ", words);
  box.append(input, label);
  return box;
}

function signInAgain() {
  dropToken();
  show("sign-in");
}

/** The server's time, as the clock of this machine may be wrong. */
function now() {
  return Date.now() + clockAheadMs;
}

// The purchase

function buy(submitted) {
  submitted.preventDefault();
  if (purchase.record) return;
  const buyer = asksWhoCalls ? user : element("user").value.trim();
  const error = buyer ? "" : "Say who the tickets are for: an e-mail address or a name.";
  text("user-error", error);
  element("user").toggleAttribute("aria-invalid", false);
  if (error || buyer.length > USER_LENGTH_MAX) {
    element("user").setAttribute("aria-invalid", "true");
    element("user").focus();
    return;
  }
  if (!asksWhoCalls) rememberUser(buyer);
  const chosen = Number(element("view-buy").elements.tickets.value || 1);
  announcedAt = 0;
  purchase.begin(buyer, chosen);
}

function changed({ step, job, error, status }) {
  if (step === "away") return showAway({ buying: true }, error?.title);
  showAway({ buying: false });
  if (step === "sending" || step === "waiting") return showWaiting(job, false);
  if (step === "cancelling") return showWaiting(job, true);
  if (step === "cancelled") return showCancelled(job);
  if (step === "refused") return status === UNAUTHENTICATED ? signInAgain() : showRefused(error);
  if (event) look();
  return job.status === "succeeded" ? showTicket(job) : showRefused(job.error);
}

function showWaiting(job, givesBack) {
  const { ticketCount, firstAhead } = purchase.record;
  text("waiting-eyebrow", givesBack ? "Giving back" : "In line");
  text("waiting-tickets", count(ticketCount));
  element("leave-row").hidden = givesBack || !job;
  if (!job) {
    text("waiting-title", givesBack ? "Giving your tickets back…" : "Taking your place…");
    text("place", "…");
    text("place-text", "");
    text("time-to-go", "–");
    text("position", "–");
    element("place-meter").style.setProperty("--share", 0);
  } else {
    const isNext = job.ahead === 0;
    text("waiting-title", isNext ? "You are next" : "You have a place in line");
    text("place", count(job.ahead));
    text("place-text", job.ahead === 1 ? "request ahead of you" : "requests ahead of you");
    const seconds = job.estimated_wait_seconds;
    text("time-to-go", isNext ? "a moment" : seconds === null ? "not known yet" : lengthInWords(seconds));
    text("position", `#${count(job.position)}`);
    const first = Math.max(firstAhead ?? job.ahead, job.ahead, 1);
    element("place-meter").style.setProperty("--share", 1 - job.ahead / first);
    announce(isNext ? "You are next." : `${count(job.ahead)} requests ahead of you.`);
  }
  show("waiting");
}

function showTicket(job) {
  const { booking } = job;
  text("ticket-title", `You have ${tickets(booking.ticket_count)}`);
  text("ticket-count", count(booking.ticket_count));
  text("ticket-event", event?.name ?? "Your event");
  text("ticket-user", booking.user_id);
  text("ticket-time", timeInWords(booking.created_at));
  text("ticket-code", booking.id.slice(-8).toUpperCase());
  text("ticket-id", booking.id);
  element("confirm").hidden = true;
  element("ticket-actions").hidden = false;
  show("ticket");
}

function showCancelled(job) {
  // Cancelled before, from elsewhere: it is given back all the same.
  if (job.error && job.error.type !== "already-cancelled") return showRefused(job.error);
  look();
  text("cancelled-text", "The tickets are on sale again. Whatever was paid is returned as your ticket shop says.");
  show("cancelled");
}

const REFUSALS = {
  "not-enough-tickets": (problem) =>
    problem.available_tickets
      ? ["Not enough tickets left", `Only ${tickets(problem.available_tickets)} left when it was your turn. You can ask for fewer.`]
      : ["Sold out", "All tickets were sold before it was your turn. When one is returned it is on sale again at once."],
  "user-limit-exceeded": (problem) => [
    "You have reached the limit",
    `You hold ${tickets(problem.held_tickets)} of at most ${count(problem.max_tickets_per_user)} for this event.`,
  ],
  "sales-not-open": (problem) => ["Not on sale yet", `Sales open on ${timeInWords(problem.sales_open_at)}.`],
  "sales-closed": () => ["Sales are closed", "The organiser closed the sales before it was your turn."],
  withdrawn: () => ["You left the line", "Nothing was booked."],
};

function showRefused(problem) {
  const words = REFUSALS[problem.type];
  const [title, detail] = words ? words(problem) : [problem.title, problem.detail];
  text("refused-title", title);
  text("refused-text", detail);
  text("again", problem.type === "withdrawn" ? "Get tickets" : "Back to the tickets");
  show("refused");
}

function again() {
  purchase.forget();
  text("told", "");
  showSale(saleState(event, now()));
  element("page").querySelector("section:not([hidden]) h2, form:not([hidden]) h2")?.focus();
  look();
}

function askToCancel() {
  text("confirm-text", `Give back ${tickets(purchase.record.ticketCount)}? They go to the next in line at once, and you can’t have them back.`);
  element("ticket-actions").hidden = true;
  element("confirm").hidden = false;
  element("confirm-no").focus();
}

function keep() {
  element("confirm").hidden = true;
  element("ticket-actions").hidden = false;
  element("cancel").focus();
}

// Beginning

function resume() {
  if (purchase.record && asksWhoCalls && user && purchase.record.userId !== user) purchase.forget();
  if (purchase.record && (!asksWhoCalls || user)) purchase.run();
}

async function begin() {
  element("user").value = rememberedUser();
  text("who", user ? `Signed in as ${user}` : "");
  element("view-buy").addEventListener("submit", buy);
  element("leave").addEventListener("click", () => purchase.leave());
  element("print").addEventListener("click", () => print());
  element("cancel").addEventListener("click", askToCancel);
  element("confirm-no").addEventListener("click", keep);
  element("confirm-yes").addEventListener("click", () => purchase.cancel());
  for (const button of document.querySelectorAll("[data-again]")) button.addEventListener("click", again);
  addEventListener("storage", (stored) => {
    if (stored.key !== purchase.name) return;
    purchase.readAgain();
    if (purchase.record) purchase.run();
    else if (event) showSale(saleState(event, now()));
  });
  document.addEventListener("visibilitychange", () => purchase.watch(!document.hidden));
  addEventListener("offline", () => showAway({ looking: true }));
  addEventListener("online", look);
  setInterval(() => event && !purchase.record && showSale(saleState(event, now())), 1000);
  if (asksWhoCalls && !user) return signInAgain();
  await look();
  resume();
  keepLooking();
}

/** Looks at the event now and then, each page at another time, and hardly ever while nobody sees it. */
function keepLooking() {
  const seconds = LOOK_SECONDS * (0.75 + Math.random() / 2) * (document.hidden ? 10 : 1);
  setTimeout(async () => {
    if (navigator.onLine) await look();
    keepLooking();
  }, seconds * 1000);
}

begin();
