// What an event's sale is at, in words: the same on the list of events, for the buyer and in the box office.

/** `{ name, label, badge }`: `name` is one of not-open, closed, sold-out, open. `now` is in milliseconds. */
export function saleState(event, now = Date.now()) {
  if (event.sales_closed) return { name: "closed", label: "Sales are closed", badge: "badge-bad" };
  if (event.sales_open_at && Date.parse(event.sales_open_at) > now) {
    return { name: "not-open", label: "Not on sale yet", badge: "badge-warn" };
  }
  if (event.available_tickets === 0) return { name: "sold-out", label: "Sold out", badge: "badge-bad" };
  return { name: "open", label: "On sale", badge: "badge-good" };
}

const whole = new Intl.NumberFormat("en");

/** 12,345 */
export function count(number) {
  return whole.format(number);
}

/** 1 ticket, 2 tickets */
export function tickets(number) {
  return `${count(number)} ${number === 1 ? "ticket" : "tickets"}`;
}

const moment = new Intl.DateTimeFormat("en", { dateStyle: "full", timeStyle: "short" });

/** A time of the API, as people write it, in the zone of the reader. */
export function timeInWords(text) {
  return moment.format(new Date(text));
}

/** A length of time as people say it: about 20 seconds, about 3 minutes. */
export function lengthInWords(seconds) {
  if (seconds < 1.5) return "a moment";
  if (seconds < 90) return `about ${Math.ceil(seconds / 5) * 5} seconds`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} minutes`;
  return `about ${Math.round(seconds / 3600)} hours`;
}
