"use strict";
// What `GET /v1/live` tells every second, as cards, charts and lists. Nothing is polled while the page is not seen.

const $ = (id) => document.getElementById(id);
const SECONDS = 120;
const COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf"];
const BAD = new Set(["down", "long_down", "held"]);
const cards = new Map();
let token = sessionStorage.getItem("token");
let last = null;
let charts = null;
let changes = "";
let stale = 0;
let source = null;

const text = (node, value) => { if (node.textContent !== value) node.textContent = value; };

function element(tag, content, className) {
  const node = document.createElement(tag);
  node.textContent = content;
  if (className) node.className = className;
  return node;
}

const known = (value, unit, digits = 0) => value === null || value === undefined ? "–" : value.toFixed(digits) + unit;

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return bytes.toFixed(unit && bytes < 100 ? 1 : 0) + " " + units[unit];
}

function rate(bits) {
  if (bits === null) return "–";
  const units = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"];
  let unit = 0;
  while (bits >= 1000 && unit < units.length - 1) { bits /= 1000; unit += 1; }
  return bits.toFixed(unit && bits < 100 ? 1 : 0) + " " + units[unit];
}

// What has been received and sent by an ISP since the report before, in bits a second.
function rates(isp, before, seconds) {
  const old = before && before.isps.find((one) => one.name === isp.name);
  if (!old || !(seconds > 0)) return [null, null];
  return ["rx_bytes", "tx_bytes"].map((key) => {
    const bytes = isp[key] - old[key];
    return isp[key] === null || bytes < 0 ? null : 8 * bytes / seconds;
  });
}

function kind(isp) {
  if (BAD.has(isp.state)) return "bad";
  return isp.state === "up" ? "good" : "warn";
}

function stateOf(isp) {
  const state = isp.state === "up" && isp.share <= 0 ? `standby (tier ${isp.tier})` : isp.state.replace("_", " ");
  return isp.forced ? `${state}, forced ${isp.forced}` : state;
}

// Asks for a change. What went wrong, or nothing.
async function change(method, path, body) {
  for (;;) {
    if (!token && !await login("")) return "";
    const answer = await fetch(path, { method, body: JSON.stringify(body), headers: { Authorization: `Bearer ${token}` } });
    if (answer.status !== 401) return answer.ok ? "" : (await answer.json()).message || answer.statusText;
    token = null;
    sessionStorage.removeItem("token");
    if (!await login("That token is wrong.")) return "";
  }
}

// Whether a token was given. It is kept as long as the tab is.
function login(trouble) {
  const dialog = $("login");
  text($("login-trouble"), trouble);
  $("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      token = dialog.returnValue === "ok" ? $("token").value.trim() : null;
      if (token) sessionStorage.setItem("token", token);
      resolve(Boolean(token));
    }, { once: true });
  });
}

function newCard(name) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  const path = `/v1/isps/${encodeURIComponent(name)}`;
  const trouble = card.querySelector(".trouble");
  const tell = async (asked) => text(trouble, await asked.catch((error) => String(error)));
  const weight = card.querySelector(".weight");
  card.dataset.isp = name;
  text(card.querySelector(".name"), name);
  card.querySelector(".buttons").setAttribute("aria-label", `Force ${name}`);
  weight.setAttribute("aria-label", `Weight of ${name}`);
  weight.addEventListener("input", () => { weight.dataset.edited = "yes"; });
  card.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    await tell(change("PUT", `${path}/weight`, { weight: Number(weight.value) }));
    delete weight.dataset.edited;
  });
  for (const button of card.querySelectorAll("[data-to]")) {
    button.addEventListener("click", () => tell(change("PUT", `${path}/force`, { to: button.dataset.to })));
  }
  $("isps").append(card);
  cards.set(name, card);
  return card;
}

function showFacts(list, facts) {
  if (list.children.length !== 2 * facts.length) {
    list.replaceChildren(...facts.flatMap(() => [document.createElement("dt"), document.createElement("dd")]));
  }
  facts.forEach(([name, value], place) => {
    text(list.children[2 * place], name);
    text(list.children[2 * place + 1], value);
  });
}

function showCard(isp, [received, sent]) {
  const card = cards.get(isp.name) || newCard(isp.name);
  card.className = `card ${kind(isp)}`;
  text(card.querySelector(".state"), stateOf(isp));
  const reason = card.querySelector(".reason");
  reason.hidden = !isp.reason;
  text(reason, isp.reason || "");
  const packets = isp.fast_packets + isp.slow_packets;
  const facts = [
    ["Share", known(100 * isp.share, " %")], ["Device", isp.device],
    ["Down", rate(received)], ["Up", rate(sent)],
    ["RTT", known(isp.rtt_ms, " ms", 1)], ["Loss", known(isp.loss_percent, " %")],
    ["Flows", known(isp.flows, "")], ["Fast", packets ? known(100 * isp.fast_packets / packets, " %") : "–"],
  ];
  if (isp.quota) facts.push(["Used", size(isp.quota.used)], ["Of", size(isp.quota.limit)]);
  if (isp.spill_over) facts.push(["Busy", rate(isp.spill_over.rate)], ["Full at", rate(isp.spill_over.over)]);
  showFacts(card.querySelector("dl"), facts);
  const share = card.querySelector(".share");
  share.value = isp.share;
  share.setAttribute("aria-label", `Share of ${isp.name}`);
  const weight = card.querySelector(".weight");
  if (!weight.dataset.edited && document.activeElement !== weight) weight.value = isp.weight;
  for (const button of card.querySelectorAll("[data-to]")) {
    button.setAttribute("aria-pressed", String(button.dataset.to === (isp.forced || "auto")));
  }
}

function newChart(id, names) {
  const box = $(id);
  const style = getComputedStyle(document.body);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
  box.replaceChildren();
  return new uPlot({
    width: Math.max(box.clientWidth, 200), height: 200, cursor: { y: false },
    scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 0.1) * 1.1] } },
    axes: [axis, { ...axis, size: 56 }],
    series: [{}, ...names.map((name, place) => ({
      label: name, stroke: COLOURS[place % COLOURS.length], width: 2, points: { show: false },
      value: (_, value) => value === null || value === undefined ? "–" : value.toFixed(2),
    }))],
  }, [[], ...names.map(() => [])], box);
}

function draw() {
  charts.received.setData(charts.data[0]);
  charts.sent.setData(charts.data[1]);
}

function newCharts(names) {
  if (charts) { charts.received.destroy(); charts.sent.destroy(); }
  const data = charts && charts.names === names.join() ? charts.data : [0, 1].map(() => [[], ...names.map(() => [])]);
  charts = { names: names.join(), received: newChart("received", names), sent: newChart("sent", names), data };
  draw();
}

function showCharts(isps, all, now) {
  const names = isps.map((isp) => isp.name);
  if (!charts || charts.names !== names.join()) newCharts(names);
  charts.data.forEach((columns, direction) => {
    columns[0].push(now / 1000);
    names.forEach((_, place) => {
      const bits = all[place][direction];
      columns[place + 1].push(bits === null ? null : bits / 1e6);
    });
    if (columns[0].length > SECONDS) columns.forEach((column) => column.shift());
    const words = names.map((name, place) => `${name} ${rate(all[place][direction])}`).join(", ");
    text($(direction ? "sent-text" : "received-text"), words);
  });
  draw();
}

function row(cells) {
  const line = document.createElement("tr");
  line.append(...cells.map((cell) => element("td", cell)));
  return line;
}

function showPolicies(policies) {
  const percent = (share) => share > 0 && share < 0.005 ? "<1 %" : `${(100 * share).toFixed(0)} %`;
  const of = (policy, family) => policy.isps.filter((isp) => isp[family] > 0).map((isp) => `${isp.name} ${percent(isp[family])}`).join(", ") || "none";
  $("policies-section").hidden = policies.length < 2;
  $("policies").replaceChildren(...policies.map((policy) => {
    const [v4, v6] = [of(policy, "ipv4"), of(policy, "ipv6")];
    return row([policy.name, policy.sticky, policy.last_resort, v4 === v6 || v6 === "none" ? v4 : `${v4}; IPv6: ${v6}`]);
  }));
}

function showSummary(isps) {
  const up = isps.filter((isp) => !BAD.has(isp.state) && isp.state !== "unknown").length;
  const words = up === isps.length ? "All ISPs work" : up ? `${isps.length - up} of ${isps.length} ISPs do not work` : "No ISP works";
  text($("summary"), words);
  $("summary").className = up === isps.length ? "good" : up ? "warn" : "bad";
  document.title = `${up === isps.length ? "" : "⚠ "}${words} – balance`;
}

function showMachine(report) {
  const devices = report.acceleration.map((device) => `${device.device}: ${device.kind}${device.reason ? ` (${device.reason})` : ""}`);
  const local = report.local_traffic;
  const lines = [
    `Fast path – ${devices.join(", ") || "none"}`,
    `Its own traffic – ${local.kind === "sockets" ? "each socket is given its ISP" : `by the weighted default route${local.reason ? ` (${local.reason})` : ""}`}`,
    ...report.failed_scripts, ...report.failed_announcements,
  ];
  $("machine").replaceChildren(...lines.map((line) => element("li", line)));
}

async function showEvents() {
  const answer = await fetch("/v1/events?number=30");
  const events = await answer.json();
  $("no-events").hidden = events.length > 0;
  $("events").replaceChildren(...events.reverse().map((event) => {
    const line = document.createElement("li");
    const time = element("time", new Date(event.time).toLocaleString());
    time.dateTime = event.time;
    const why = event.evidence ? `: ${event.evidence}` : "";
    line.append(time, element("span", `${event.isp} is ${event.state.replace("_", " ")}, was ${event.previous.replace("_", " ")}${why}`));
    return line;
  }));
}

async function showFlows() {
  const answer = await fetch("/v1/flows?number=15");
  if (!answer.ok) return;
  const { flows, total, counted } = await answer.json();
  $("flows").replaceChildren(...flows.map((flow) => row([flow.isp, flow.protocol, flow.from, flow.to, size(flow.bytes)])));
  const note = $("no-flows");
  note.hidden = flows.length > 0 && counted;
  text(note, !flows.length ? "There are none." : `Bytes are not counted here: sysctl net.netfilter.nf_conntrack_acct=1 does, for new flows. ${total} flows in all.`);
}

function show(report, now) {
  const seconds = last ? (now - last.now) / 1000 : 0;
  const all = report.isps.map((isp) => rates(isp, last && last.report, seconds));
  text($("instance"), report.instance === "main" ? "" : report.instance);
  text($("token-place"), `cat /var/lib/balance/${report.instance}/web-token`);
  for (const [name, card] of cards) {
    if (!report.isps.some((isp) => isp.name === name)) { card.remove(); cards.delete(name); }
  }
  report.isps.forEach((isp, place) => showCard(isp, all[place]));
  showSummary(report.isps);
  showCharts(report.isps, all, now);
  showPolicies(report.policies);
  showMachine(report);
  const states = report.isps.map((isp) => isp.name + isp.state + isp.forced + isp.since).join();
  const isTime = !last || Math.floor(now / 5000) !== Math.floor(last.now / 5000);
  // What came of a change is told a moment after it.
  if (states !== changes) { changes = states; stale = 2; }
  if (stale > 0 || isTime) { stale -= 1; showEvents().catch(trouble); }
  if (isTime) showFlows().catch(trouble);
  last = { report, now };
}

function trouble(what) {
  text($("summary"), `Not connected: ${what}`);
  $("summary").className = "bad";
}

function connect() {
  if (source) source.close();
  last = null;
  source = new EventSource("/v1/live");
  source.addEventListener("status", (event) => show(JSON.parse(event.data), Date.now()));
  source.addEventListener("trouble", (event) => trouble(JSON.parse(event.data)));
  // It tries again by itself.
  source.addEventListener("error", () => trouble("the daemon does not answer"));
}

$("login-cancel").addEventListener("click", () => $("login").close(""));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { source.close(); source = null; } else if (!source) connect();
});
addEventListener("resize", () => {
  for (const id of ["received", "sent"]) if (charts) charts[id].setSize({ width: Math.max($(id).clientWidth, 200), height: 200 });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (charts) newCharts(charts.names.split(",")); });
if (!document.hidden) connect();
