// What the box office shows of a snapshot: figures, charts, refusals, the newest entries of the ledger.

import { TimeChart, kept } from "/assets/chart.js";
import { count, lengthInWords, saleState, tickets, timeInWords } from "/assets/sale-state.js";

const OUTCOMES = {
  booked: ["Booked", "badge-good"],
  cancelled: ["Cancelled", "badge-accent"],
  changed: ["Event changed", "badge-accent"],
  withdrawn: ["Withdrawn", ""],
  "not-enough-tickets": ["Not enough tickets left", "badge-bad"],
  "user-limit-exceeded": ["Over the buyer’s limit", "badge-bad"],
  "already-cancelled": ["Cancelled already", "badge-bad"],
  "booking-not-found": ["No such booking", "badge-bad"],
  "sales-not-open": ["Sales not open yet", "badge-bad"],
  "sales-closed": ["Sales closed", "badge-bad"],
  "total-below-sold": ["Total below what is sold", "badge-bad"],
  "command-unreadable": ["Command unreadable", "badge-bad"],
  "event-not-found": ["No such event", "badge-bad"],
  "position-taken": ["Position taken", "badge-bad"],
  repeated: ["Sent twice", ""],
  "idempotency-key-reused": ["Key used before", "badge-bad"],
};
const element = (id) => document.getElementById(id);
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** A length of time, as short as a figure on a wall should be: ["430", "ms"]. */
function shortTime(seconds) {
  if (seconds < 0.9995) return [seconds < 0.01 ? oneDigit.format(seconds * 1000) : count(Math.round(seconds * 1000)), "ms"];
  if (seconds < 120) return [oneDigit.format(seconds), "s"];
  return [count(Math.round(seconds / 60)), "min"];
}

function timeText(seconds) {
  return shortTime(seconds).join(" ");
}

export function clockText(text) {
  return clock.format(new Date(text));
}

function perSecond(rate) {
  return rate < 10 ? oneDigit.format(rate) : count(Math.round(rate));
}

function put(id, text) {
  const shown = element(id);
  if (shown.textContent !== text) shown.textContent = text;
}

function putWithUnit(id, number, unit) {
  const small = document.createElement("span");
  small.className = "unit";
  small.textContent = unit;
  element(id).replaceChildren(number, small);
}

function sum(counts = {}) {
  return Object.values(counts).reduce((total, each) => total + each, 0);
}

/** Everything that was refused, by reason, the most frequent first. */
function refusals(snapshot) {
  const { rejected = {}, failed = {} } = snapshot.outcomes;
  return Object.entries({ ...rejected, ...failed }).sort((one, other) => other[1] - one[1]);
}

/** The points of the charts, made of snapshots; what is not known is null. */
class History {
  points = [];
  #before = null;

  add(snapshot) {
    const time = Date.parse(snapshot.at);
    if (this.#before && time <= Date.parse(this.#before.at)) return;
    const seesLine = !snapshot.not_answering.includes("redis") && snapshot.line !== null;
    const seesLedger = !snapshot.not_answering.includes("postgresql");
    const values = {
      line: seesLine ? snapshot.line.length : null,
      accepted: seesLine ? this.#rate(time, snapshot, (each) => each.line?.accepted_position ?? null) : null,
      decided: seesLedger ? this.#rate(time, snapshot, (each) => each.applied_position) : null,
      p50: seesLedger ? (snapshot.latency?.p50_seconds ?? null) : null,
      p99: seesLedger ? (snapshot.latency?.p99_seconds ?? null) : null,
    };
    this.points = kept([...this.points, { time, values }]);
    this.#before = snapshot;
  }

  /** The lines of the charts end here and begin anew. */
  break() {
    const last = this.points.at(-1);
    if (!last) return;
    this.#before = null;
    this.points.push({ time: last.time + 1, values: Object.fromEntries(Object.keys(last.values).map((key) => [key, null])) });
  }

  #rate(time, snapshot, position) {
    if (!this.#before) return null;
    const [now, then] = [position(snapshot), position(this.#before)];
    if (now === null || then === null) return null;
    return Math.max(now - then, 0) / ((time - Date.parse(this.#before.at)) / 1000);
  }
}

/** Shows snapshots, one after the other. */
export class BoxOfficeView {
  #history = new History();
  #newestPosition = null;
  #charts = [
    new TimeChart(element("rate-chart"), {
      series: [
        { key: "accepted", label: "Accepted" },
        { key: "decided", label: "Decided" },
      ],
      format: perSecond,
      least: 4,
    }),
    new TimeChart(element("latency-chart"), {
      series: [
        { key: "p50", label: "Half in" },
        { key: "p99", label: "99 % in" },
      ],
      format: timeText,
      least: 0.01,
    }),
    new TimeChart(element("line-chart"), {
      series: [{ key: "line", label: "Commands" }],
      format: (value) => (Number.isInteger(value) ? count(value) : oneDigit.format(value)),
      least: 4,
    }),
  ];

  show(snapshot) {
    this.#history.add(snapshot);
    this.#showEvent(snapshot);
    this.#showLine(snapshot.line);
    this.#showLatency(snapshot.latency);
    this.#showRefusals(snapshot);
    this.#showLedger(snapshot.entries);
    for (const chart of this.#charts) chart.show(this.#history.points);
  }

  breakCharts() {
    this.#history.break();
  }

  #showEvent({ event, at, sold_tickets: sold }) {
    const state = saleState(event, Date.parse(at));
    document.title = `${event.name} – box office`;
    put("name", event.name);
    put("state", state.label);
    element("state").className = `badge ${state.badge}`;
    put("opens-at", state.name === "not-open" ? `Sales open ${timeInWords(event.sales_open_at)}` : "");
    put("sold", count(sold));
    put("left", count(event.available_tickets));
    const share = sold / event.total_tickets;
    element("sold-meter").style.setProperty("--share", share);
    put("sold-share", `${oneDigit.format(Math.floor(share * 1000) / 10)} % of ${tickets(event.total_tickets)}`);
    element("open-sales").hidden = !event.sales_closed;
    element("close-sales").hidden = event.sales_closed;
  }

  #showLine(line) {
    if (line === null) {
      for (const id of ["line", "oldest", "drain"]) put(id, "–");
    } else {
      put("line", count(line.length));
      put("oldest", line.length ? `the first for ${timeText(line.oldest_wait_seconds)}` : "nobody waits");
      const wait = line.drain_rate ? line.length / line.drain_rate : null;
      put("drain", line.length && wait !== null ? `empty in ${lengthInWords(wait)}` : line.length ? "standing still" : "the line is empty");
    }
    const decided = this.#history.points.at(-1)?.values.decided ?? null;
    if (decided === null) put("rate", "–");
    else putWithUnit("rate", perSecond(decided), "/s");
  }

  #showLatency(latency) {
    if (latency) putWithUnit("p99", ...shortTime(latency.p99_seconds));
    else put("p99", "–");
    put("p50", latency ? `half in ${timeText(latency.p50_seconds)}` : "nothing decided lately");
  }

  #showRefusals(snapshot) {
    const found = refusals(snapshot);
    const refused = found.reduce((total, [, each]) => total + each, 0);
    const decided = Object.values(snapshot.outcomes).reduce((total, counts) => total + sum(counts), 0);
    put("refused", count(refused));
    put("refused-share", `of ${count(decided)} decided`);
    const list = element("refusals");
    if (!found.length) list.replaceChildren(nothing("Nobody has been refused."));
    else list.replaceChildren(...found.map(([code, each]) => bar(code, each, refused)));
    const { counted_position: counted, applied_position: applied } = snapshot;
    put("counting", counted < applied ? `Counting the ledger: ${count(counted)} of ${count(applied)} so far.` : "");
  }

  #showLedger(entries) {
    const newest = entries[0]?.position ?? 0;
    if (newest === this.#newestPosition) return;
    const before = this.#newestPosition;
    this.#newestPosition = newest;
    element("ledger-empty").hidden = entries.length > 0;
    element("ledger").replaceChildren(...entries.map((entry) => row(entry, before !== null && entry.position > before)));
  }
}

function nothing(text) {
  const item = document.createElement("li");
  item.className = "nothing";
  item.textContent = text;
  return item;
}

function bar(code, number, all) {
  const item = document.createElement("li");
  const head = document.createElement("div");
  head.className = "bar-head";
  const reason = document.createElement("span");
  reason.textContent = outcomeOf(code)[0];
  const value = document.createElement("strong");
  value.className = "figures";
  value.textContent = count(number);
  head.append(reason, " ", value);
  const meter = document.createElement("div");
  meter.className = "meter";
  meter.setAttribute("aria-hidden", "true");
  const filled = document.createElement("span");
  filled.style.setProperty("--share", number / all);
  meter.append(filled);
  item.append(head, meter);
  return item;
}

function outcomeOf(code) {
  return OUTCOMES[code] ?? [code, ""];
}

function row(entry, isFresh) {
  const made = document.createElement("tr");
  if (isFresh) made.className = "fresh";
  const [label, look] = outcomeOf(entry.outcome);
  const badge = document.createElement("span");
  badge.className = `badge ${look}`;
  badge.textContent = label;
  const took = Math.max((Date.parse(entry.applied_at) - Date.parse(entry.accepted_at)) / 1000, 0);
  made.append(
    cell(count(entry.position), "number"),
    cell(commandText(entry)),
    cell(badge),
    cell(entry.command?.user_id ?? (entry.kind === "change" ? "the organiser" : "–"), "by"),
    cell(timeText(took), "number"),
    cell(clockText(entry.applied_at), "number"),
  );
  return made;
}

function cell(content, className = "") {
  const made = document.createElement("td");
  made.className = className;
  made.append(content);
  return made;
}

function commandText({ kind, command }) {
  if (kind === "book") return `Book ${tickets(command?.ticket_count ?? 0)}`;
  if (kind === "cancel") return "Cancel a booking";
  if (kind === "change") return changeText(command ?? {});
  return kind === "repeat" ? "Sent again" : "Unreadable";
}

function changeText(change) {
  const parts = [];
  if (change.sales_closed !== undefined) parts.push(change.sales_closed ? "Close sales" : "Open sales");
  if (change.total_tickets !== undefined) parts.push(`Total to ${count(change.total_tickets)}`);
  if (change.name !== undefined) parts.push(`Rename to “${change.name}”`);
  if (change.sales_open_at !== undefined) parts.push("New opening time");
  return parts.join(", ") || "Change";
}

/** The whole screen in a few sentences, for who has it read out. */
export function summary(snapshot) {
  const { event, line, latency } = snapshot;
  const refused = refusals(snapshot).reduce((total, [, each]) => total + each, 0);
  return [
    `${event.name}: ${saleState(event, Date.parse(snapshot.at)).label}.`,
    `${tickets(snapshot.sold_tickets)} sold, ${count(event.available_tickets)} left.`,
    line === null ? "" : `${count(line.length)} in line.`,
    latency === null ? "" : `99 % of results within ${timeText(latency.p99_seconds)}.`,
    `${count(refused)} refused.`,
  ].join(" ");
}
