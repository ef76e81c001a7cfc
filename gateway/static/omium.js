// Lists executions and follows one live. Everything shown goes through textContent: what agents write is data.

const KEY = "omium-key";
const LIST_EVERY_MS = 2500;
const REFRESH_MS = 150;
const RETRY_MS = [250, 500, 1000, 2000, 4000];
const ENDED = new Set(["completed", "failed", "cancelled"]);
const RESTING = new Set(["queued", "waiting_approval", "paused"]);
const TEXT_CHARS_MAX = 20000;

const at = (id) => document.getElementById(id);
const state = { key: "", chosen: "", execution: null, follower: null, opened: new Set(), pages: 1, answers: new Map() };

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// -- talking to the gateway

class Problem extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${state.key}`, ...options.headers };
  if (options.body !== undefined) {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(options.body);
  }
  const response = await fetch(path, { ...options, headers });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Problem(response.status, problem.detail || `HTTP ${response.status}`);
  }
  return response;
}

const read = async (path) => (await ask(path)).json();

// Server-sent events over fetch: EventSource cannot send the key, and a key has no place in a URL.
class Follower {
  constructor(id, onEvent) {
    this.id = id;
    this.onEvent = onEvent;
    this.position = "";
    this.stopping = new AbortController();
    this.run();
  }

  stop() { this.stopping.abort(); }

  async run() {
    let failures = 0;
    while (!this.stopping.signal.aborted) {
      try {
        const ended = await this.once(() => connected(true), () => { failures = 0; });
        if (ended) return;
      } catch (error) {
        if (this.stopping.signal.aborted) return;
        if (error instanceof Problem && error.status < 500 && error.status !== 429) return fail(error);
        connected(false);
      }
      await new Promise((done) => setTimeout(done, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]));
    }
  }

  async once(onOpen, onFirst) {
    const headers = this.position ? { "Last-Event-ID": this.position } : {};
    const response = await ask(`/v1/executions/${encodeURIComponent(this.id)}/events`, { headers, signal: this.stopping.signal });
    onOpen();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return false;
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      for (const frame of frames) {
        const fields = Object.fromEntries(frame.split("\n").filter((line) => line && !line.startsWith(":")).map((line) => {
          const cut = line.indexOf(": ");
          return [line.slice(0, cut), line.slice(cut + 2)];
        }));
        if (fields.id) this.position = fields.id;
        if (fields.event) {
          // A stream that opens and breaks at once is no connection: only an event ends the waiting.
          onFirst();
          this.onEvent(fields.event);
        }
        if (fields.event === "end") return true;
      }
    }
  }
}

function connected(isUp) {
  at("connection").textContent = isUp ? "" : "The gateway does not answer; trying again…";
  at("connection").classList.toggle("bad", !isUp);
}

function fail(error) {
  if (error.status === 401 || error.status === 403) return logOut(error.message);
  at("detail").replaceChildren(el("p", { class: "empty" }, error.message));
}

// -- the list

let listing = 0;

async function showList() {
  const turn = ++listing;
  const status = at("status").value;
  try {
    const rows = [];
    let cursor = "";
    for (let page = 0; page < state.pages && cursor !== null; page++) {
      const query = new URLSearchParams({ limit: "40", status, cursor });
      const found = await read(`/v1/executions?${query}`);
      rows.push(...found.executions);
      cursor = found.next_cursor;
    }
    if (turn !== listing) return;
    connected(true);
    at("executions").replaceChildren(...rows.map(listRow));
    if (rows.length === 0) at("executions").append(el("li", { class: "faint" }, "None yet. omiumctl run FILE.py:OBJ starts one."));
    at("more").hidden = cursor === null;
  } catch (error) {
    if (error instanceof Problem && error.status < 500) return fail(error);
    connected(false);
  }
}

function listRow(execution) {
  const cost = execution.cost_microusd ? usd(execution.cost_microusd) : "";
  return el("li", {},
    el("a", { href: `#${execution.id}`, "aria-current": execution.id === state.chosen ? "true" : undefined },
      el("span", { class: "name" }, execution.workflow),
      chip(execution.status),
      el("span", { class: "meta" }, el("span", {}, ago(execution.created_at_ms)), el("span", {}, cost))));
}

// -- one execution

function choose(id) {
  if (state.follower) state.follower.stop();
  state.follower = null;
  state.chosen = id;
  state.execution = null;
  state.opened.clear();
  at("work").classList.toggle("chosen", id !== "");
  showList();
  if (id === "") {
    at("detail").replaceChildren(el("p", { class: "empty" }, "Choose an execution."));
    return;
  }
  at("detail").replaceChildren(el("p", { class: "empty" }, "Reading…"));
  state.follower = new Follower(id, refreshSoon);
}

let refreshTimer = null;

// Many events, one reading: the gateway folds them, the page only draws.
function refreshSoon() {
  if (refreshTimer !== null) return;
  refreshTimer = setTimeout(async () => {
    refreshTimer = null;
    const id = state.chosen;
    try {
      const execution = await read(`/v1/executions/${encodeURIComponent(id)}`);
      if (id !== state.chosen) return;
      state.execution = execution;
      draw();
    } catch (error) {
      if (error instanceof Problem && error.status < 500) fail(error);
      else setTimeout(refreshSoon, 1000);
    }
  }, REFRESH_MS);
}

function draw() {
  const e = state.execution;
  if (!e) return;
  const focused = document.activeElement && document.activeElement.id;
  at("detail").replaceChildren(
    headline(e), tiles(e), ...e.approvals.filter((a) => a.status === "pending" && !ENDED.has(e.status)).map(question),
    fault(e), timeline(e), value("Output", e.output), value("Input", e.input));
  // A redraw must not take the field away from somebody who types in it.
  if (focused && at(focused)) at(focused).focus();
}

function headline(e) {
  const actions = el("div", { class: "actions" });
  if (!ENDED.has(e.status)) {
    if (e.status === "paused") actions.append(command("Resume", e.id, "resume"));
    else if (e.status !== "waiting_approval") actions.append(command("Pause", e.id, "pause"));
    actions.append(command("Cancel", e.id, "cancel", "no"));
  }
  const resumed = e.incarnation > 0 ? ` · resumed ${e.incarnation}×` : "";
  const labels = Object.entries(e.labels || {}).map(([name, text]) => ` · ${name}: ${text}`).join("");
  return el("div", {},
    el("div", { class: "headline" }, el("h2", {}, e.workflow), chip(e.status), actions),
    el("p", { class: "subline" }, el("span", { class: "mono" }, e.id), ` · ${e.framework} · ${new Date(e.created_at_ms).toLocaleString()}${resumed}${labels}`),
    e.reason ? el("p", { class: "subline" }, e.reason) : "");
}

function command(label, id, name, tone = "") {
  return el("button", { type: "button", class: tone, onclick: async (event) => {
    event.target.disabled = true;
    await act(`/v1/executions/${encodeURIComponent(id)}/${name}`, {});
  } }, label);
}

async function act(path, body) {
  try {
    await ask(path, { method: "POST", body });
    connected(true);
  } catch (error) {
    at("connection").textContent = error.message;
    at("connection").classList.add("bad");
  }
  refreshSoon();
}

function tiles(e) {
  const end = e.ended_at_ms || Date.now();
  const tokens = e.tokens.input + e.tokens.output;
  const tile = (figure, name, id) => el("div", { class: "tile" }, el("b", id ? { id } : {}, figure), el("span", {}, name));
  return el("div", { class: "tiles" },
    tile(took(end - (e.started_at_ms || e.created_at_ms)), "duration", "clock"), tile(String(e.step_count), "steps"),
    tile(String(e.llm_calls), "LLM calls"), tile(String(e.tool_calls), "tool calls"),
    tile(tokens.toLocaleString(), "tokens"), tile(usd(e.cost_microusd), "cost"));
}

function question(approval) {
  const what = approval.tool || approval.step;
  const field = el("input", { id: `answer-${approval.id}`, placeholder: "Answer (JSON or text), optional", "aria-label": "Answer",
    oninput: (event) => state.answers.set(approval.id, event.target.value) });
  field.value = state.answers.get(approval.id) || "";
  const resolve = (verb) => async (event) => {
    event.target.disabled = true;
    await act(`/v1/approvals/${encodeURIComponent(approval.id)}/${verb}`, { value: answerOf(field.value), reason: "" });
  };
  return el("div", { class: "card ask" },
    el("h3", {}, `Waits for a person: ${approval.kind.replaceAll("_", " ")}${what ? ` · ${what}` : ""}`),
    el("pre", {}, text(approval.payload)),
    el("div", { class: "actions" }, field,
      el("button", { type: "button", class: "yes", onclick: resolve("approve") }, "Approve"),
      el("button", { type: "button", class: "no", onclick: resolve("reject") }, "Reject")));
}

function answerOf(typed) {
  if (typed.trim() === "") return null;
  try { return JSON.parse(typed); } catch { return typed; }
}

function fault(e) {
  if (!e.error) return "";
  const where = e.error.step ? ` in ${e.error.step}` : "";
  return el("div", { class: "card fault" }, el("h3", { class: "problem" }, `${e.error.type}${where}`), el("pre", {}, e.error.message));
}

function timeline(e) {
  const start = e.started_at_ms || e.created_at_ms;
  const end = Math.max(e.ended_at_ms || (RESTING.has(e.status) ? lastOf(e, start) : Date.now()), start + 1);
  const scale = { start, length: end - start, isOver: e.ended_at_ms !== null };
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => el("span", {}, took(part * scale.length)));
  const rows = e.steps.flatMap((step) => [...stepRows(step, scale), ...step.calls.flatMap((call) => callRows(call, scale))]);
  rows.push(...e.calls.flatMap((call) => callRows(call, scale)));
  if (rows.length === 0) rows.push(el("p", { class: "faint" }, ENDED.has(e.status) ? "No step ran." : "No step has begun."));
  return el("div", { class: "card" }, el("h3", {}, "Timeline"),
    el("div", { class: "axis" }, el("span", {}, "step"), el("span", { class: "ticks" }, ...ticks), el("span", { class: "took" }, "")),
    ...rows);
}

// While nothing runs the axis stands still: a day's wait for a person must not squeeze the work into nothing.
function lastOf(e, start) {
  const calls = [...e.steps.flatMap((step) => step.calls), ...e.calls];
  const ends = [...e.steps, ...calls].map((thing) => thing.ended_at_ms || (thing.started_at_ms || start) + (thing.duration_ms || 0));
  const last = Math.max(start, ...ends);
  return last + (last - start) * 0.05;
}

function stepRows(step, scale) {
  const tries = step.attempts > 1 ? el("span", { class: "tries" }, ` · ${step.attempts} attempts`) : "";
  const agent = step.agent && step.agent !== step.step ? el("span", { class: "agent" }, ` ${step.agent}`) : "";
  const what = el("span", { class: "what", title: step.step_key }, step.step, agent, tries);
  const tokens = step.calls.reduce((sum, call) => sum + (call.input_tokens || 0) + (call.output_tokens || 0), 0);
  const shown = { Output: step.output, Error: step.error && `${step.error.type}: ${step.error.message}` };
  const note = tokens ? `${tokens} tok · ` : "";
  return rowOf(`step ${step.step_key}`, `row step is-${step.status}`, what, bar(step, scale), `${note}${duration(step)}`, shown);
}

function callRows(call, scale) {
  const route = call.route ? el("span", { class: "agent" }, ` ${call.route}`) : "";
  const again = call.resolution === "reconciled" ? el("span", { class: "tries" }, " · reconciled") : "";
  const what = el("span", { class: "what", title: call.call_id }, el("span", { class: "tag" }, call.kind), call.name, route, again);
  const isLlm = call.kind === "llm";
  const shown = isLlm
    ? { Usage: call.status === "completed" && `${call.provider}: ${call.input_tokens} in (${call.cached_tokens} cached), ${call.output_tokens} out, ${usd(call.cost_microusd)}` }
    : { Arguments: call.arguments, Result: call.result };
  shown.Error = call.error && `${call.error.type}: ${call.error.message}`;
  const note = isLlm && call.status === "completed" ? `${call.input_tokens}+${call.output_tokens} · ` : "";
  return rowOf(`call ${call.call_id}`, `row call ${call.kind} is-${call.status}`, what, bar(call, scale), `${note}${duration(call)}`, shown);
}

function rowOf(key, classes, what, track, took, shown) {
  const parts = Object.entries(shown).filter(([, content]) => content !== null && content !== undefined && content !== false);
  const isOpen = state.opened.has(key);
  const toggle = () => { isOpen ? state.opened.delete(key) : state.opened.add(key); draw(); };
  const opens = parts.length > 0 ? {
    id: `row-${key}`, class: `${classes} opens`, role: "button", tabindex: "0", "aria-expanded": String(isOpen), onclick: toggle,
    onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); } },
  } : { class: classes };
  const row = el("div", opens, what, el("span", { class: "track" }, track), el("span", { class: "took" }, took));
  if (!isOpen) return [row];
  return [row, el("div", { class: "opened" }, ...parts.flatMap(([name, content]) => [el("h4", {}, name), el("pre", {}, text(content))]))];
}

function bar(thing, scale) {
  if (thing.started_at_ms === null) return "";
  const isRunning = thing.status === "running" && !scale.isOver;
  const end = thing.duration_ms !== null ? (thing.ended_at_ms || thing.started_at_ms + thing.duration_ms) : scale.start + scale.length;
  const node = el("span", { class: isRunning ? "bar moving" : "bar" });
  const part = (ms) => Math.min(100, Math.max(0, (100 * ms) / scale.length));
  const left = part(thing.started_at_ms - scale.start);
  node.style.left = `${left}%`;
  node.style.width = `${Math.max(0.3, part(end - scale.start) - left)}%`;
  return node;
}

function value(name, content) {
  if (content === null || content === undefined) return "";
  return el("div", { class: "card" }, el("h3", {}, name), el("pre", {}, text(content)));
}

// -- words and figures

const chip = (status) => el("span", { class: `chip is-${status}` }, status.replaceAll("_", " "));

function text(content) {
  const whole = typeof content === "string" ? content : JSON.stringify(content, null, 2);
  return whole.length > TEXT_CHARS_MAX ? `${whole.slice(0, TEXT_CHARS_MAX)}\n… ${whole.length - TEXT_CHARS_MAX} characters more` : whole;
}

function took(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
  return `${Math.floor(ms / 60000)} m ${Math.round((ms % 60000) / 1000)} s`;
}

const duration = (thing) => (thing.duration_ms === null ? thing.status : took(thing.duration_ms));
const usd = (micro) => `$${(micro / 1e6).toFixed(6)}`;

function ago(ms) {
  const seconds = Math.max(0, Math.round((Date.now() - ms) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(ms).toLocaleDateString();
}

// -- the key, and which execution

// `#key=omk_…` (printed by `omiumctl`) is taken once and removed from the address bar; fragments never reach a server.
function route() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const key = fragment.get("key");
  const id = fragment.get("id") || (location.hash.includes("=") ? "" : decodeURIComponent(location.hash.slice(1)));
  if (key) {
    sessionStorage.setItem(KEY, key);
    history.replaceState(null, "", id ? `#${id}` : location.pathname);
  }
  state.key = sessionStorage.getItem(KEY) || "";
  at("login").hidden = state.key !== "";
  at("work").hidden = at("forget").hidden = state.key === "";
  if (state.key !== "" && (id !== state.chosen || state.execution === null)) choose(id);
}

function logOut(reason = "") {
  sessionStorage.removeItem(KEY);
  if (state.follower) state.follower.stop();
  state.chosen = "";
  at("login-problem").textContent = reason;
  route();
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, at("key").value.trim());
  at("key").value = "";
  at("login-problem").textContent = "";
  route();
});
at("forget").addEventListener("click", () => logOut());
at("status").addEventListener("change", () => { state.pages = 1; showList(); });
at("more").addEventListener("click", () => { state.pages += 1; showList(); });
window.addEventListener("hashchange", route);
setInterval(() => { if (state.key && !document.hidden) showList(); }, LIST_EVERY_MS);
setInterval(() => {
  const e = state.execution;
  // Running bars grow between events; nothing is redrawn while somebody types or nothing runs.
  if (e && !ENDED.has(e.status) && !(document.activeElement instanceof HTMLInputElement)) draw();
}, 500);
route();
