// The list of events.

import { Api, Away, pause, pauseMs } from "/assets/http.js";
import { count, saleState, tickets, timeInWords } from "/assets/sale-state.js";

const CREDENTIAL = "onsale.key";
const PAGE_EVENTS = 30;
const asksWhoCalls = document.documentElement.dataset.auth === "required";
const api = new Api(() => sessionStorage.getItem(CREDENTIAL));
const element = (id) => document.getElementById(id);
let next = null;

function card(event) {
  const state = saleState(event);
  const item = document.createElement("li");
  const box = document.createElement("article");
  box.className = "card event";
  const title = document.createElement("h2");
  title.textContent = event.name;
  const badge = document.createElement("span");
  badge.className = `badge ${state.badge}`;
  badge.textContent = state.label;
  const about = document.createElement("p");
  about.className = "quiet figures";
  about.textContent =
    state.name === "not-open"
      ? `From ${timeInWords(event.sales_open_at)}`
      : `${count(event.available_tickets)} of ${tickets(event.total_tickets)} left`;
  const links = document.createElement("p");
  links.className = "links";
  links.append(
    link(`/sale/${event.id}`, "Get tickets", `for ${event.name}`),
    link(`/box-office/${event.id}`, "Box office", `of ${event.name}`),
  );
  const top = document.createElement("div");
  top.className = "stack";
  top.append(badgeRow(badge), title, about);
  box.append(top, links);
  item.append(box);
  return item;
}

function badgeRow(badge) {
  const row = document.createElement("p");
  row.append(badge);
  return row;
}

function link(href, text, of) {
  const anchor = document.createElement("a");
  anchor.href = href;
  anchor.textContent = text;
  const rest = document.createElement("span");
  rest.className = "visually-hidden";
  rest.textContent = ` ${of}`;
  anchor.append(rest);
  return anchor;
}

async function show(path) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const { body, headers } = await api.call("GET", path);
      element("away").hidden = true;
      element("events").append(...body.items.map(card));
      next = /<([^>]+)>;\s*rel="next"/.exec(headers.get("Link") ?? "")?.[1] ?? null;
      element("more").hidden = next === null;
      element("nothing").hidden = element("events").children.length > 0;
      return;
    } catch (error) {
      if (!(error instanceof Away)) throw error;
      element("away").hidden = false;
      await pause(pauseMs(attempt, error.retryAfterSeconds));
    }
  }
}

async function begin() {
  const needsKey = asksWhoCalls && !sessionStorage.getItem(CREDENTIAL);
  element("sign-in").hidden = !needsKey;
  if (needsKey) return;
  try {
    await show(`/events?limit=${PAGE_EVENTS}`);
  } catch (error) {
    sessionStorage.removeItem(CREDENTIAL);
    element("sign-in").hidden = false;
    element("credential-error").textContent = error.message;
    element("credential").setAttribute("aria-invalid", "true");
    element("credential").focus();
  }
}

element("sign-in").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  sessionStorage.setItem(CREDENTIAL, element("credential").value.trim());
  element("credential").value = "";
  element("credential").removeAttribute("aria-invalid");
  element("credential-error").textContent = "";
  begin();
});
element("more").addEventListener("click", () => show(next));
begin();
