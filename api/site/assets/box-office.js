// The box office: follows the feed of one sale, and says so when it can't.

import { connectActions } from "/assets/box-office-actions.js";
import { connectStampede } from "/assets/box-office-stampede.js";
import { BoxOfficeView, clockText, summary } from "/assets/box-office-view.js";
import { Api, Problem } from "/assets/http.js";
import { saleState } from "/assets/sale-state.js";

const KEY = "onsale.key";
const SILENCE_MS_MAX = 6_000;
const NEW_EVENT = "new";
const asksWhoCalls = document.documentElement.dataset.auth === "required";
const eventId = location.pathname.split("/").filter(Boolean).at(-1);
const element = (id) => document.getElementById(id);
const api = new Api(() => sessionStorage.getItem(KEY));
const view = new BoxOfficeView();
let snapshot = null;
let newsAt = 0;
let isLost = false;

/** Screen readers are told what changes the situation, not each number. */
function say(text) {
  element("told").textContent = text;
}

function showView(name) {
  for (const id of ["sign-in", "missing", "office"]) element(id).hidden = id !== name;
}

function showConnection(text, look = "") {
  element("connection").hidden = !text;
  element("connection").textContent = text;
  element("connection").className = `badge ${look}`;
}

/** A warning above the numbers, and which of them are old: those of these servers. Null takes it away. */
function showAway(text, old = ["redis", "postgresql"]) {
  element("away").hidden = text === null;
  element("away-text").textContent = text ?? "";
  for (const server of ["redis", "postgresql"]) {
    element("office").classList.toggle(`old-${server}`, text !== null && old.includes(server));
  }
}

function asOf() {
  return snapshot ? ` The numbers are those of ${clockText(snapshot.at)}.` : "";
}

function lose(text) {
  if (!isLost) {
    view.breakCharts();
    say("The connection is lost. Trying again.");
  }
  isLost = true;
  showConnection("Connection lost", "badge-bad");
  showAway(`${text}${asOf()}`);
}

function awayText(names) {
  if (names.length === 2) return `Neither Redis nor PostgreSQL answers Onsale.${asOf()}`;
  if (names[0] === "redis") return "Redis, which holds the line, does not answer: nothing can be booked until it is back, and what is said of the line is old.";
  return "PostgreSQL does not answer: commands are still accepted and wait. What is said of tickets and results is old.";
}

function showSnapshot(newest) {
  tellChange(newest);
  snapshot = newest;
  newsAt = Date.now();
  isLost = false;
  showView("office");
  view.show(newest);
  const names = newest.not_answering;
  showConnection(names.length ? "Live, in part" : "Live", names.length ? "badge-warn" : "badge-good");
  showAway(names.length ? awayText(names) : null, names);
  element("stampede").hidden = !newest.demo;
  element("buyers-view").hidden = element("add").hidden = false;
}

function tellChange(newest) {
  if (isLost) return say("Connected again.");
  if (!snapshot) return say(summary(newest));
  const [before, now] = [snapshot, newest].map((each) => saleState(each.event, Date.parse(each.at)));
  if (before.name !== now.name) say(`${now.label}.`);
}

function askForKey(error = "") {
  sessionStorage.removeItem(KEY);
  element("sign-out").hidden = true;
  showConnection("");
  showAway(null);
  showView("sign-in");
  element("key-error").textContent = error;
  element("key").toggleAttribute("aria-invalid", false);
  if (error) element("key").setAttribute("aria-invalid", "true");
  element("key").focus();
}

function showMissing(title, text) {
  element("missing-title").textContent = title;
  element("missing-text").textContent = text;
  showConnection("");
  showAway(null);
  showView("missing");
  element("missing-title").focus();
}

function showRefusal(problem) {
  if (problem.status === 401) return askForKey("This key is not good, or not any more. Check it, or make a new one.");
  if (problem.status === 403) return askForKey("This key is a seller’s. The box office needs an organiser’s.");
  if (problem.status === 410) return showMissing("This event is over", problem.message);
  const hint = asksWhoCalls ? " If it is another organiser’s, you need their key." : "";
  showMissing("There is no such event", `The link may be old or incomplete.${hint}`);
}

async function open() {
  if (asksWhoCalls && !sessionStorage.getItem(KEY)) return askForKey();
  element("sign-out").hidden = !asksWhoCalls;
  if (eventId === NEW_EVENT) {
    showMissing("Add an event", "Say what it is called and how many tickets there are. Its box office opens at once.");
    return element("add-dialog").showModal();
  }
  showConnection("Connecting");
  try {
    await api.follow(`/events/${eventId}/box-office`, {
      onEvent: ({ data }) => showSnapshot(data),
      onLost: (error) => lose(error.document ? `${error.message} Trying again…` : "Onsale can’t be reached. Trying again…"),
    });
  } catch (error) {
    if (error instanceof Problem) return showRefusal(error);
    lose("This page can’t show what Onsale says. Reload it; it may be older than Onsale is now.");
    throw error;
  }
}

/** A stream may stay open and say nothing, where the network or the server stands still. */
function watchSilence() {
  const silent = Date.now() - newsAt;
  if (snapshot && !isLost && !element("office").hidden && silent > SILENCE_MS_MAX) {
    showConnection(`No news for ${Math.round(silent / 1000)} s`, "badge-warn");
    showAway(`Onsale has said nothing for ${Math.round(silent / 1000)} seconds.${asOf()}`);
  }
}

element("sign-in").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const key = element("key").value.trim();
  if (!key) return askForKey("Paste the key here.");
  sessionStorage.setItem(KEY, key);
  element("key").value = "";
  open();
});
element("sign-out").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});
element("read-out").addEventListener("click", () => say(snapshot ? summary(snapshot) : "There are no numbers yet."));
element("buyers-view").href = `/sale/${eventId}`;
connectActions({ api, eventId, current: () => snapshot, say });
connectStampede({ api, eventId, say });
setInterval(watchSilence, 1_000);
open();
