// The page of `longreach serve`: a conversation with the model on texts of any length. What it speaks is the server's protocol alone.

const PASTED = 6000; // characters; what is pasted and longer becomes a document
const LOOKED_AT = 1 << 20; // bytes of a document that are checked before it is sent; the server checks all of it
const PAUSE = 300; // ms without a key before a draft is counted
const READS = [
  { spec: "rag", summary: "finding the passages that matter" },
  { spec: "chain", summary: "going through them piece by piece, with notes" },
  { spec: "map_reduce", summary: "asking every piece, and joining the answers" },
];
const OVERFLOWS = [
  { spec: "whole_turns", summary: "leaving out the oldest turns" },
  { spec: "summarise", summary: "summarising the oldest turns" },
];
const ABILITIES = { literal: "Literal", latent: "Latent", ordering: "Ordering", aggregation: "Aggregation" };

const SETTINGS = { // fields of requests -> where they are set
  temperature: "temperature", max_tokens: "max-tokens", seed: "seed", "longreach.read": "read", "longreach.overflow": "overflow",
};

const at = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
const tokens = (count) => `${number(count)} token${count === 1 ? "" : "s"}`;

/** A percentage; what is there at all is not 0. */
function share(part, whole) {
  const percent = whole ? 100 * part / whole : 0;
  return percent > 0 && percent < 1 ? "under 1 %" : `${Math.round(percent)} %`;
}

/** An element. Args: traits: its attributes, and listeners as `onclick`; what is null, undefined or false is left out. */
function make(tag, traits = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(traits)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A spec, as nodes that may break at its joints. */
function breakable(words) {
  return words.split(/(?<=[:,+])/).flatMap((part, index) => (index ? [make("wbr"), part] : [part]));
}

/** A table. Args: rows: of cells, each {words or nodes, and whether it is a number, heads its row, or says less}. */
function sheet(traits, heads, rows) {
  const cell = (tag, { content, kind = null }, more = {}) => make(tag, { class: kind, ...more }, ...[content].flat());
  const head = make("tr", {}, ...heads.map((each) => cell("th", each, { scope: "col" })));
  const body = rows.map(([first, ...rest]) => make("tr", {}, cell("th", first, { scope: "row" }), ...rest.map((each) => cell("td", each))));
  return make("table", { class: "sheet", ...traits }, make("thead", {}, head), make("tbody", {}, ...body));
}

function button(words, act, traits = {}) {
  return make("button", { type: "button", class: "small", onclick: act, ...traits }, words);
}

// ---------------------------------------------------------------- The server

/** What the server refused, or why it could not be asked, in one line. */
class Refusal extends Error {
  constructor(message, { status = 0, code = null, param = null } = {}) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}

const UNREACHABLE = "The server does not answer. Is it still running?";

function headers() {
  return secret.key ? { Authorization: `Bearer ${secret.key}` } : {};
}

function refusal(status, text, after) {
  let error = null;
  try {
    error = JSON.parse(text).error;
  } catch {
    error = null; // something before the server answered in words of its own
  }
  const said = typeof error === "string" ? error : error?.message;
  let message = said || `The server answered with status ${status}.`;
  message = message.replace(/ \(longreach\..*\)$/, ""); // remedies by their names in requests; the page offers them by itself
  if (status === 401) message += " Enter the server’s API key in the settings.";
  if (after) message += ` Try again in ${after} s.`;
  return new Refusal(message, { status, code: error?.code ?? null, param: error?.param ?? null });
}

/** A reply whose status is good. Raises: Refusal; AbortError where `signal` says so. */
async function call(path, { method = "GET", body, signal } = {}) {
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const type = body === undefined ? {} : { "Content-Type": "application/json" };
  let reply;
  try {
    reply = await fetch(path, { method, signal, headers: { ...headers(), ...type }, ...sent });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(UNREACHABLE);
  }
  if (!reply.ok) throw refusal(reply.status, await reply.text().catch(() => ""), reply.headers.get("Retry-After"));
  return reply;
}

/** Server-sent events from bytes that may be split anywhere, also within a character or a line end. */
export class Events {
  #decoder = new TextDecoder();
  #rest = "";
  #data = [];

  /** The data of every event that these bytes complete. */
  push(bytes) {
    const lines = (this.#rest + this.#decoder.decode(bytes, { stream: true })).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    const found = [];
    for (const line of lines) {
      if (line === "" && this.#data.length) found.push(this.#data.splice(0).join("\n"));
      else if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
    }
    return found;
  }
}

/** The chunks of an answer as they come. Raises: Refusal, also where the answer breaks off; AbortError. */
async function* streamed(body, signal) {
  const reply = await call("v1/chat/completions", { method: "POST", body, signal });
  const reader = reply.body.getReader();
  const events = new Events();
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("The connection broke off before the answer ended.");
    }
    if (part.done) throw new Refusal("The connection ended before the answer did.");
    for (const data of events.push(part.value)) {
      if (data === "[DONE]") return;
      let chunk;
      try {
        chunk = JSON.parse(data);
      } catch {
        throw new Refusal("The server sent something that is no part of an answer.");
      }
      if (chunk.error) throw refusal(reply.status, data, null);
      yield chunk;
    }
  }
}

/** Send a file; `fetch` does not say how far it is. Args: tell: (share that is sent). */
function upload(file, name, tell, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("purpose", "user_data");
    form.append("file", file, name);
    request.open("POST", "v1/files");
    for (const [header, value] of Object.entries(headers())) request.setRequestHeader(header, value);
    request.upload.onprogress = (event) => event.lengthComputable && tell(event.loaded / event.total);
    request.onerror = () => reject(new Refusal(UNREACHABLE));
    request.onload = () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

// ---------------------------------------------------------------- What the page knows

const secret = { key: sessionStorage.getItem("longreach.key") ?? "" }; // never in what is saved
const state = {
  models: [], // as the server lists them
  model: null, // the chosen one
  turns: [], // {message, documents, versions, shown}: `versions` of answers alone
  documents: [], // of the draft: {name, id, tokens, sent, control}
  writing: null, // {control}: of the answer that is being written
  unsaved: false,
  scrolled: 0, // px, of the conversation, while the panel is shown in its place
};

const serving = () => state.model?.longreach ?? {};
const version = (turn) => turn.versions[turn.shown];
const contentOf = (turn) => (turn.versions ? version(turn).text : turn.message.content);

/** A turn's message as the server takes it: documents stand before what is asked about them. */
function wired(turn) {
  if (turn.versions) return { ...turn.message, content: turn.message.tool_calls ? turn.message.content : contentOf(turn) };
  const there = turn.documents.filter((each) => !each.gone);
  if (!there.length) return turn.message;
  const parts = there.map((each) => ({ type: "file", file: { file_id: each.id } }));
  return { ...turn.message, content: [...parts, { type: "text", text: turn.message.content }] };
}

function systemMessages() {
  const system = at("system").value.trim();
  return system ? [{ role: "system", content: system }] : [];
}

/** The settings as fields of a request. Raises: Refusal for what is no setting. */
function settings() {
  const own = { progress: true };
  const fields = { longreach: own };
  const numbers = { temperature: "from 0 to 2", max_tokens: "a whole number, at least 1", seed: "a whole number, at least 0" };
  for (const [name, words] of Object.entries(numbers)) {
    const field = at(SETTINGS[name]);
    if (!field.checkValidity()) throw new Refusal(`${field.labels[0].textContent} has to be ${words}.`, { param: name });
    if (field.value !== "") fields[name] = Number(field.value);
  }
  for (const name of ["overflow", "read"]) {
    if (at(name).value.trim()) own[name] = at(name).value.trim();
  }
  return fields;
}

function request(upto, lengths) {
  const messages = [...systemMessages(), ...state.turns.slice(0, upto).map(wired)];
  return { model: state.model.id, messages, stream: true, stream_options: { include_usage: true }, ...settings(), ...lengths };
}

// ---------------------------------------------------------------- Lines that say what went wrong

function line(words, ...acts) {
  return make("p", { class: "line" }, make("span", {}, words), ...acts);
}

function complain(place, words, ...acts) {
  at(place).append(line(words, ...acts));
}

function reveal(id) {
  at("settings").open = true;
  if (at("panel").offsetParent === null) showPanel(true);
  at(id).focus();
}

/** On narrow screens the panel stands in place of the conversation. */
function showPanel(shown) {
  if (shown === at("panel").classList.contains("open")) return;
  const before = scrollY;
  at("panel").classList.toggle("open", shown);
  at("panel-toggle").setAttribute("aria-expanded", String(shown));
  at("panel-toggle").textContent = shown ? "Close" : "Menu";
  scrollTo(0, shown ? 0 : state.scrolled);
  if (shown) state.scrolled = before;
}

// ---------------------------------------------------------------- Text of the model, as nodes

/** The blocks of a text: {kind, source, ...}. A block that is not finished is one, too. */
export function blocks(text) {
  const found = [];
  let open = null;
  const close = () => {
    if (open) found.push(open);
    open = null;
  };
  for (const one of text.split("\n")) {
    if (open?.kind === "code") {
      open.source += `\n${one}`;
      if (one.trim() === open.fence) close();
      else open.lines.push(one);
      continue;
    }
    const fence = one.match(/^\s*(```+|~~~+)/)?.[1];
    const item = one.match(/^\s*(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/);
    const head = one.match(/^#{1,6}\s+(.*)$/);
    if (fence) {
      close();
      open = { kind: "code", fence, lines: [], source: one };
    } else if (item) {
      const kind = item[1] === undefined ? "ul" : "ol";
      if (open?.kind !== kind) {
        close();
        open = { kind, start: Number(item[1] ?? 1), lines: [], source: "" };
      }
      open.lines.push(item[2]);
      open.source += `${one}\n`;
    } else if (head) {
      close();
      found.push({ kind: "head", lines: [head[1]], source: one });
    } else if (!one.trim()) {
      if (open?.kind === "p") close();
    } else if (open && open.kind !== "p" && /^\s/.test(one)) {
      open.lines.push(`${open.lines.pop()}\n${one.trim()}`);
      open.source += `${one}\n`;
    } else {
      if (open?.kind !== "p") {
        close();
        open = { kind: "p", lines: [], source: "" };
      }
      open.lines.push(one);
      open.source += `${one}\n`;
    }
  }
  close();
  return found;
}

/** A line's `code` and **strong** parts as nodes; all else is text. */
function inline(text) {
  return text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/).map((part, index) => {
    if (index % 2 === 0) return part;
    return part[0] === "`" ? make("code", {}, part.slice(1, -1)) : make("strong", {}, part.slice(2, -2));
  });
}

function drawnCode(text, label) {
  return make("pre", { tabindex: 0, role: "region", "aria-label": label }, make("code", {}, text)); // it may have to be scrolled
}

function drawnBlock({ kind, lines, start }) {
  if (kind === "code") return drawnCode(lines.join("\n"), "Code");
  if (kind === "head") return make("p", { class: "head" }, ...inline(lines[0]));
  if (kind === "p") return make("p", {}, ...inline(lines.join("\n")));
  return make(kind, { start: kind === "ol" && start !== 1 ? start : null }, ...lines.map((item) => make("li", {}, ...inline(item))));
}

/** Draw a text, and of one that has grown only what is new. */
function drawText(place, text) {
  const wanted = blocks(text);
  const drawn = (place.sources ??= []);
  let same = 0;
  while (same < wanted.length && wanted[same].source === drawn[same]) same += 1;
  while (place.childNodes.length > same) place.lastChild.remove();
  place.append(...wanted.slice(same).map(drawnBlock));
  place.sources = wanted.map((block) => block.source);
}

// ---------------------------------------------------------------- What a screen reader is told while an answer comes

/** Says whole sentences, politely. */
class Speaker {
  #said = 0;

  /** Args: text: of the answer so far. ended: whether there is no more. */
  hear(text, ended = false) {
    const fresh = text.slice(this.#said);
    const ends = [...fresh.matchAll(/[.!?…:;]["”’)]*\s|\n/g)].map((hit) => hit.index + hit[0].length);
    const upto = ended ? fresh.length : ends.at(-1) ?? 0;
    this.#said += upto;
    if (fresh.slice(0, upto).trim()) speak(fresh.slice(0, upto).trim());
  }
}

function speak(words) {
  at("spoken").append(make("p", {}, words));
  while (at("spoken").childNodes.length > 20) at("spoken").firstChild.remove();
}

// ---------------------------------------------------------------- Turns

function drawTurns() {
  at("empty").hidden = state.turns.length > 0;
  at("turns").replaceChildren(...state.turns.map(drawnTurn));
}

function drawnTurn(turn, index) {
  if (turn.versions) return drawnAnswer(turn, index);
  turn.node = turn.message.role === "user" ? drawnQuestion(turn) : drawnOther(turn.message);
  return turn.node;
}

function drawnQuestion(turn) {
  const chips = turn.documents.map((each) => make("li", { class: each.gone ? "chip gone" : "chip" }, ...namesOf(each)));
  return make(
    "li", { class: "turn user" }, make("h2", { class: "unseen" }, "You"),
    chips.length ? make("ul", { class: "chips", "aria-label": "Documents" }, ...chips) : null,
    make("div", { class: "said" }, turn.message.content),
  );
}

/** Messages of a loaded conversation that are neither questions nor answers. */
function drawnOther(message) {
  const head = message.role === "tool" ? "Result of a tool" : "System";
  return make("li", { class: "turn folded" }, make("h2", {}, head), make("div", { class: "said" }, make("p", {}, message.content)));
}

function namesOf(each) {
  const size = each.gone ? "not on the server" : each.tokens === null ? "" : tokens(each.tokens);
  return [make("span", { class: "name", title: each.name }, each.name), make("span", { class: "size" }, size)];
}

function drawnAnswer(turn, index) {
  const called = ({ function: tool }) => `${tool?.name ?? "tool"}(${tool?.arguments ?? ""})`;
  const calls = (turn.message.tool_calls ?? []).map(called).join("\n");
  turn.said = make("div", { class: "said" });
  turn.wait = make("div", { class: "wait", hidden: true }, make("span", {}), make("progress", { "aria-label": "Progress" }));
  turn.foot = make("div", { class: "foot", hidden: true });
  turn.node = make(
    "li", { class: "turn answer" }, make("h2", {}, state.model?.id ?? "Answer"), turn.said,
    calls ? drawnCode(calls, "Calls of tools") : null, turn.wait, turn.foot,
  );
  drawVersion(turn, index);
  return turn.node;
}

function drawVersion(turn, index) {
  const shown = version(turn);
  drawText(turn.said, shown.text);
  turn.node.setAttribute("aria-busy", String(Boolean(shown.open)));
  drawProgress(turn);
  turn.foot.hidden = Boolean(shown.open);
  if (!shown.open) keepFocus(turn.foot, () => turn.foot.replaceChildren(...underAnswer(turn, index)));
}

/** Draw a place anew, and leave the focus on the control of the same name. */
function keepFocus(place, draw) {
  const name = place.contains(document.activeElement) ? document.activeElement.dataset.name : null;
  draw();
  if (name) (place.querySelector(`[data-name="${name}"]`) ?? at("draft")).focus();
}

const STAGES = { reading: "Reading the prompt", waiting: "Waiting for the model" };

function drawProgress(turn) {
  const { open, progress, text } = version(turn);
  turn.wait.hidden = !open || (Boolean(text) && !progress);
  const [words, bar] = turn.wait.children;
  const known = progress && progress.total > 0;
  const stage = progress ? STAGES[progress.stage] ?? sentence(progress.stage) : "Waiting for the model";
  words.textContent = known ? `${stage}: ${number(progress.done)} of ${tokens(progress.total)}` : `${stage} …`;
  if (known) {
    bar.max = progress.total;
    bar.value = progress.done;
  } else bar.removeAttribute("value");
}

function sentence(word) {
  const plain = String(word).replaceAll("_", " ");
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

// ---------------------------------------------------------------- Writing an answer

const nearEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 120;

function toEnd() {
  scrollTo(0, document.documentElement.scrollHeight);
}

/** What a chunk of a stream adds to a version of an answer. */
function take(into, chunk) {
  const choice = chunk.choices?.[0];
  const own = chunk.longreach ?? {};
  if (choice?.delta?.content) {
    into.text += choice.delta.content;
    into.progress = null;
  }
  if (choice?.finish_reason) into.facts.finish = choice.finish_reason;
  if (chunk.usage) into.facts.usage = chunk.usage;
  if (own.progress) into.progress = own.progress;
  for (const name of ["profile", "window", "reused", "receipt", "ledger"]) {
    if (own[name] !== undefined && own[name] !== null) into.facts[name] = own[name];
  }
}

/** Have a new version of an answer written. Raises: Refusal or AbortError where nothing of it came, and then there is no new version. */
async function write(turn, lengths) {
  const index = state.turns.indexOf(turn);
  const body = request(index, lengths);
  const fresh = { text: "", facts: {}, ended: "", open: true, progress: null };
  const before = turn.shown;
  turn.versions.push(fresh);
  turn.shown = turn.versions.length - 1;
  const control = new AbortController();
  const speaker = new Speaker();
  setWriting({ control });
  if (turn.node) drawVersion(turn, index);
  else {
    at("turns").append(drawnAnswer(turn, index));
    toEnd();
  }
  let due = null;
  const draw = () => {
    due = null;
    const follow = nearEnd();
    drawVersion(turn, index);
    speaker.hear(fresh.text);
    if (follow) toEnd();
  };
  let stage = null;
  try {
    for await (const chunk of streamed(body, control.signal)) {
      take(fresh, chunk);
      if (fresh.progress && fresh.progress.stage !== stage) speak(`${STAGES[fresh.progress.stage] ?? sentence(fresh.progress.stage)} …`);
      stage = fresh.progress?.stage ?? stage;
      due ??= requestAnimationFrame(draw);
    }
  } catch (error) {
    if (error.name !== "AbortError" && !(error instanceof Refusal)) throw error;
    if (!fresh.text) {
      turn.versions.pop();
      turn.shown = before;
      throw error;
    }
    fresh.ended = error.name === "AbortError" ? "You stopped this answer." : `The answer is not whole: ${error.message}`;
  } finally {
    control.abort(); // also of what the server may go on to send behind an error
    cancelAnimationFrame(due);
    fresh.open = false;
    const stopped = document.activeElement === at("stop");
    const follow = nearEnd();
    setWriting(null);
    if (turn.versions.length) drawVersion(turn, index);
    if (follow) toEnd();
    if (stopped) (turn.foot.querySelector('[data-name="next"]') ?? at("draft")).focus();
  }
  speaker.hear(fresh.text, true);
  speak(fresh.ended || "The answer is complete.");
  state.unsaved = true;
  measure();
}

function setWriting(writing) {
  const sent = document.activeElement === at("send");
  state.writing = writing;
  at("stop").hidden = !writing;
  at("send").hidden = Boolean(writing);
  at("keys").textContent = writing ? "" : "Enter sends, Shift+Enter: new line";
  for (const each of document.querySelectorAll("[data-again]")) each.setAttribute("aria-disabled", String(Boolean(writing)));
  if (sent) at("draft").focus();
}

/** Send the draft. What was typed and attached comes back where nothing is answered. */
async function send() {
  clearTrouble();
  if (!state.model) await meet();
  if (state.writing) return;
  const words = at("draft").value.trim();
  const refused = whyNot(words);
  if (refused) return void complain("trouble", refused);
  const question = { message: { role: "user", content: words }, documents: state.documents };
  const answer = { message: { role: "assistant" }, versions: [], shown: 0, documents: [] };
  const typed = at("draft").value;
  begin(question, answer);
  try {
    await write(answer, {});
  } catch (error) {
    takeBack(question, answer, typed);
    if (error.name === "AbortError") speak("Stopped before an answer began. Your message is back in the field.");
    else if (error instanceof Refusal) tell(error);
    else throw error;
  }
}

function whyNot(words) {
  const going = state.documents.find((each) => each.id === null);
  if (!state.model) return "There is no model to ask.";
  if (going) return `${going.name} is still on its way to the server. Send once it is there.`;
  if (!words) return state.documents.length ? "Write what you want to know of the document." : "Write something first.";
  return null;
}

function begin(question, answer) {
  state.turns.push(question, answer);
  setDraft("");
  state.documents = [];
  drawChips();
  at("empty").hidden = true;
  at("turns").append(drawnTurn(question));
}

function takeBack(question, answer, typed) {
  state.turns = state.turns.filter((turn) => turn !== question && turn !== answer);
  question.node.remove();
  answer.node?.remove();
  const meanwhile = at("draft").value;
  setDraft(meanwhile.trim() ? `${typed}\n\n${meanwhile}` : typed);
  state.documents = [...question.documents, ...state.documents];
  drawChips();
  at("empty").hidden = state.turns.length > 0;
  at("draft").focus();
}

/** Say by the composer why there is no answer, and what may be done. */
function tell(error) {
  clearTrouble();
  const setting = error.status === 401 ? "key" : SETTINGS[error.param];
  complain("trouble", error.message, ...(setting ? [button("Open the setting", () => reveal(setting))] : []));
  if (error.code === "context_length_exceeded") offer(send);
}

function clearTrouble() {
  at("trouble").replaceChildren();
  at("offer").hidden = true;
}

function setDraft(words) {
  at("draft").value = words;
  fitDraft();
  measure();
}

function fitDraft() {
  at("draft").style.height = "auto";
  at("draft").style.height = `${at("draft").scrollHeight}px`;
}

// ---------------------------------------------------------------- What is too long

function offer(again) {
  const documents = [...state.turns.flatMap((turn) => turn.documents), ...state.documents];
  const choices = (list) => list.map(({ spec, summary }) => make("option", { value: spec }, summary ? `${spec}: ${summary}` : spec));
  at("offer-read").hidden = documents.length === 0;
  at("offer-read-spec").replaceChildren(...choices(specs("read")));
  at("offer-overflow-spec").replaceChildren(...choices(specs("overflow").filter(({ spec }) => spec !== "refuse")));
  for (const name of ["read", "overflow"]) {
    at(`offer-${name}-use`).onclick = () => {
      at(name).value = at(`offer-${name}-spec`).value;
      measure();
      at("draft").focus();
      clearTrouble();
      again();
    };
  }
  at("offer").hidden = false;
}

/** What may stand in a setting: the server's own list, where it has one. */
function specs(name) {
  const listed = serving()[name];
  const known = name === "read" ? READS : OVERFLOWS;
  return Array.isArray(listed) ? listed.map((spec) => known.find((each) => each.spec === spec) ?? { spec }) : known;
}

// ---------------------------------------------------------------- Under an answer

function underAnswer(turn, index) {
  const shown = version(turn);
  const { finish, ledger, receipt, usage } = shown.facts;
  const empty = shown.text || turn.message.tool_calls ? null : make("p", { class: "line plain" }, "The answer is empty.");
  const limit = finish === "length" && usage ? `It ends here because it reached the limit of ${tokens(usage.completion_tokens)}.` : null;
  const ended = shown.ended ? line(shown.ended) : limit && make("p", { class: "line plain" }, limit);
  return [
    empty, ended, drawnFacts(shown.facts), receipt ? drawnReceipt(receipt) : null,
    ledger ? drawnLedger(ledger) : null, drawnAgain(turn, index), turn.trouble ? line(turn.trouble) : null,
  ].filter(Boolean);
}

/** What answered, and tokens of it. */
function drawnFacts({ profile, usage, reused, ledger, window: reach }) {
  const found = reused ?? usage?.prompt_tokens_details?.cached_tokens ?? 0;
  const rows = [];
  if (profile !== undefined) rows.push(["Profile", profile ? breakable(profile) : "the model as it is"]);
  if (usage) {
    const [read, written] = [Math.max(0, usage.prompt_tokens - found), usage.completion_tokens];
    rows.push(["Read", number(read)], ["Reused", number(found)], ["Written", number(written)]);
  }
  if (usage && reach && !ledger) rows.push(["Window", `${number(usage.total_tokens)} of ${tokens(reach)}`]);
  const drawn = rows.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, ...[value].flat())));
  return make("dl", { class: "facts" }, ...drawn);
}

/** What the answer was written without: the receipt's fields, in words. */
function drawnReceipt(receipt) {
  const out = receipt.left_out ?? [];
  const parts = receipt.note ? [receipt.note] : [];
  const turns = [...new Set(out.map((each) => each.turn))].sort((one, other) => one - other);
  const lost = out.reduce((sum, each) => sum + each.tokens, 0);
  if (out.length) {
    const which = turns.length === 1 ? `turn ${turns[0]}` : `turns ${turns[0]} to ${turns.at(-1)}`;
    const instead = receipt.summary ? `, for which a summary of ${tokens(receipt.summary_tokens)} stands` : "";
    parts.push(`left out ${which}, ${tokens(lost)}${instead}`);
  }
  const unseen = (receipt.kept ?? 0) - (receipt.seen ?? 0);
  if (unseen > 0 && receipt.forgotten) parts.push(`no longer seen: ${number(unseen)} of ${tokens(receipt.kept)}, between the first and the last`);
  else if (unseen > 0) parts.push(`all ${tokens(receipt.kept)} are kept; each sees up to ${number(receipt.seen)}`);
  if (!parts.length) return make("p", { class: "left-out soft" }, "The whole conversation was read.");
  const rows = out.map((each) => make("li", {}, `turn ${each.turn}, ${each.role}: ${tokens(each.tokens)}`));
  const said = `Not all of the conversation was read: ${parts.join("; ")}.`;
  return make(
    "details", { class: "left-out" }, make("summary", { "data-name": "receipt" }, said),
    make("p", { class: "soft" }, `Policy: ${receipt.policy}. ${tokens(receipt.system_tokens ?? 0)} of the system prompt were kept.`),
    rows.length ? make("ul", {}, ...rows) : null, receipt.summary ? make("blockquote", {}, receipt.summary) : null,
  );
}

/** Ask again at another length, and go from version to version. */
function drawnAgain(turn, index) {
  const { usage, ledger } = version(turn).facts; // a workflow's usage is that of all its calls
  const written = Math.max(1, (ledger ? null : usage?.completion_tokens) ?? Math.ceil(version(turn).text.length / 4));
  // No workflow can be told to write more than it has to say.
  const between = (least, most) => (ledger ? { max_tokens: most } : { min_tokens: least, max_tokens: most });
  const [half, more] = [Math.max(1, Math.round(written / 2)), Math.round(written * 1.5)];
  const traits = { "data-again": true, "aria-disabled": String(Boolean(state.writing)) };
  const to = (name, label, lengths) =>
    button(name, () => rewrite(turn, index, lengths), { ...traits, "data-name": name, "aria-label": `Again, ${label}` });
  const many = make("input", {
    type: "number", min: 1, step: 1, inputmode: "numeric", placeholder: "tokens", "data-name": "many",
    "aria-label": "Tokens of the new answer",
  });
  const exactly = (event) => {
    event.preventDefault();
    const asked = Number(many.value);
    if (many.value && many.checkValidity()) rewrite(turn, index, between(asked, asked));
    else many.focus();
  };
  const go = make("button", { ...traits, class: "small", "data-name": "go", "aria-label": "Again, with this many tokens" }, "Go");
  return make(
    "div", { class: "again", role: "group", "aria-label": "Ask again" }, make("span", {}, "Again"),
    to("Shorter", `shorter: at most ${tokens(half)}`, { max_tokens: half }),
    to("As long", `about as long: ${tokens(written)}`, between(Math.ceil(written * 0.9), Math.ceil(written * 1.1))),
    to("Longer", `longer: at least ${tokens(more)}`, between(more, written * 3)),
    make("form", { class: "many", onsubmit: exactly, novalidate: true }, many, go),
    turn.versions.length > 1 ? drawnVersions(turn, index) : null,
  );
}

function drawnVersions(turn, index) {
  const count = turn.versions.length;
  const go = (step) => () => {
    if (version(turn).open) return;
    turn.shown = (turn.shown + step + count) % count;
    drawVersion(turn, index);
    speak(`Version ${turn.shown + 1} of ${count}`);
    measure();
  };
  return make(
    "div", { class: "versions", role: "group", "aria-label": "Versions of this answer" },
    button("‹", go(-1), { "aria-label": "Version before", "data-name": "before" }), `${turn.shown + 1} of ${count}`,
    button("›", go(1), { "aria-label": "Next version", "data-name": "next" }),
  );
}

async function rewrite(turn, index, lengths) {
  if (state.writing) return;
  turn.trouble = null;
  clearTrouble();
  try {
    const done = write(turn, lengths);
    at("stop").focus({ preventScroll: true });
    await done;
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Refusal)) throw error;
    turn.trouble = error.message;
    drawVersion(turn, index);
    speak(error.message);
    if (error.code === "context_length_exceeded") offer(() => rewrite(turn, index, lengths));
  }
}

// ---------------------------------------------------------------- The ledger: what a workflow read of each document

/**
 * The places of one of a ledger's documents in order, without overlaps: {start, end, kind, excerpt}, in characters. What supports the
 * answer stands out of what was read. What lies between places is white space.
 */
export function places(ledger, document) {
  let found = [];
  for (const kind of ["support", "read", "unread"]) {
    for (const one of (ledger[kind] ?? []).filter((each) => each.document === document)) {
      const parts = freeParts(one, found).map(([start, end]) => ({ start, end, kind, excerpt: one.excerpt }));
      found = [...found, ...parts].sort((first, second) => first.start - second.start);
    }
  }
  return found;
}

/** The parts of a place that are not taken: [start, end]. */
function freeParts({ start, end }, taken) {
  const parts = [];
  let from = start;
  for (const one of taken.filter((each) => each.start < end && each.end > start)) {
    if (one.start > from) parts.push([from, one.start]);
    from = Math.max(from, one.end);
  }
  return from < end ? [...parts, [from, end]] : parts;
}

const KINDS = { read: "read", unread: "not read", support: "supports the answer" };

function drawnLedger(ledger) {
  const { calls = 0, read = 0, written = 0 } = ledger.cost ?? {};
  const notes = [];
  if (ledger.replayed) notes.push(`${number(ledger.replayed)} of the calls were answered from a recording.`);
  if (ledger.cut) notes.push(`${number(ledger.cut)} of the model’s answers ended at their limit.`);
  if (!ledger.exact) notes.push("Tokens are estimates.");
  if (ledger.stopped) notes.push(ledger.stopped);
  const spent = `in ${number(calls)} call${calls === 1 ? "" : "s"}: ${tokens(read)} read, ${number(written)} written.`;
  const head = ["Read by ", ...breakable(ledger.workflow ?? "a workflow"), ` ${[spent, ...notes].join(" ")}`];
  return make(
    "section", { class: "ledger", "aria-label": "What was read of the documents" }, make("p", {}, ...head),
    ...(ledger.documents ?? []).map((each, index) => drawnDocument(ledger, each, index)),
    ledger.calls?.length ? drawnCalls(ledger.calls) : null,
  );
}

function drawnDocument(ledger, { name, characters }, document) {
  const found = places(ledger, document);
  const told = make("div", { class: "span", "aria-live": "polite" });
  let chosen = -1;
  const choose = (index, focus = true) => {
    chosen = index;
    buttons.forEach((node, place) => {
      node.setAttribute("aria-pressed", String(place === index));
      node.tabIndex = place === index ? 0 : -1;
    });
    if (focus) buttons[index].focus({ preventScroll: true });
    const { kind, excerpt } = found[index];
    told.className = `span ${kind}`;
    told.replaceChildren(make("p", {}, `${placeOf(found[index], characters)}.`), excerpt ? make("blockquote", {}, excerpt) : "");
  };
  const buttons = found.map((place, index) => drawnPlace(place, index, characters, () => choose(index)));
  const strip = make("div", { class: "strip", role: "group", "aria-label": `Places in ${name}; arrow keys go from place to place` });
  const ends = [0, ...found.map(({ end }) => end)];
  strip.append(...buttons.flatMap((node, index) => [gap(found[index].start - ends[index]), node]), gap(characters - ends.at(-1)));
  strip.addEventListener("keydown", (event) => {
    const to = { ArrowRight: chosen + 1, ArrowLeft: Math.max(chosen, 0) - 1, Home: 0, End: found.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(Math.min(found.length - 1, Math.max(0, to)));
  });
  const size = make("span", { class: "note" }, `${number(characters)} characters`);
  return make(
    "div", { class: "document" }, make("div", { class: "row" }, make("h3", {}, name), size), strip,
    make("div", { class: "row" }, drawnKeys(found), drawnSteps(found, name, () => chosen, choose)), told,
  );
}

function drawnPlace(place, index, characters, choose) {
  const traits = { class: place.kind, tabindex: index ? -1 : 0, "aria-pressed": "false", "aria-label": placeOf(place, characters) };
  const node = button("", choose, traits);
  node.style.flexGrow = place.end - place.start;
  return node;
}

function gap(characters) {
  const node = make("i");
  node.style.flexGrow = characters;
  return node;
}

/** Buttons that go from one place that supports the answer to another, for fingers. */
function drawnSteps(found, name, chosen, choose) {
  const supports = found.flatMap(({ kind }, index) => (kind === "support" ? [index] : []));
  if (!supports.length) return "";
  const next = () => choose(supports.find((index) => index > chosen()) ?? supports[0], false);
  const before = () => choose(supports.findLast((index) => index < chosen()) ?? supports.at(-1), false);
  const to = (sign, act, words) => button(sign, act, { "aria-label": `${words}, in ${name}` });
  return make("div", { class: "row" }, to("‹", before, "Support before"), to("›", next, "Next support"));
}

function drawnKeys(found) {
  const sum = (kind) => found.filter((place) => place.kind === kind).reduce((total, { start, end }) => total + end - start, 0);
  const [read, unread, support] = [sum("read") + sum("support"), sum("unread"), sum("support")];
  const key = (kind, words) => make("li", { class: kind }, make("i"), words);
  return make(
    "ul", { class: "keys" }, key("read", `read ${share(read, read + unread)}`), key("unread", `not read ${share(unread, read + unread)}`),
    support ? key("support", `supports the answer ${share(support, read + unread)}`) : null,
  );
}

function placeOf({ start, end, kind }, characters) {
  return `Characters ${number(start)} to ${number(end)} of ${number(characters)}: ${KINDS[kind]}`;
}

function drawnCalls(calls) {
  const amount = (value) => ({ content: number(value), kind: "number" });
  const name = (each) => ({ content: `${each.number}. ${each.role}${each.cut ? ", cut" : ""}` });
  const rows = calls.map((each) => [name(each), amount(each.read), amount(each.written)]);
  const heads = [{ content: "Call" }, { content: "Read", kind: "number" }, { content: "Written", kind: "number" }];
  const label = "Calls of the model";
  return make("details", { class: "calls" }, make("summary", {}, label), sheet({ "aria-label": label }, heads, rows));
}

// ---------------------------------------------------------------- Documents

/** Whether the beginning of a file is text in UTF-8. Raises: Refusal where it is not. */
async function checkText(file, name) {
  if (file.size === 0) throw new Refusal(`${name} is empty.`);
  let bytes;
  try {
    bytes = new Uint8Array(await file.slice(0, LOOKED_AT).arrayBuffer());
  } catch {
    throw new Refusal(`${name} cannot be read. Is it a folder?`);
  }
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
  } catch {
    throw new Refusal(`${name} is not text in UTF-8. Documents are plain text.`);
  }
  if (bytes.includes(0)) throw new Refusal(`${name} is not text: it has bytes of zero. Documents are plain text.`);
}

async function addFile(file, name = file.name) {
  const each = { name, id: null, tokens: null, sent: 0, control: new AbortController() };
  try {
    await checkText(file, name);
    state.documents.push(each);
    drawChips();
    const found = await upload(file, name, (sent) => drawSent(each, sent), each.control.signal);
    each.id = found.id;
    each.tokens = found.longreach?.tokens ?? null;
    speak(`${name} is attached${each.tokens === null ? "" : `, ${tokens(each.tokens)}`}.`);
    listDocuments();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    state.documents = state.documents.filter((other) => other !== each);
    complain("trouble", error.message.includes(name) ? error.message : `${name}: ${error.message}`);
  }
  drawChips();
  measure();
}

function drawSent(each, sent) {
  each.sent = sent;
  const bar = each.node?.querySelector("progress");
  if (bar) bar.value = sent;
  const size = each.node?.querySelector(".size");
  if (size) size.textContent = sent < 1 ? `sending ${share(sent, 1)}` : "counting …";
}

function drawChips() {
  at("chips").replaceChildren(...state.documents.map((each) => {
    const waits = each.id === null;
    const bar = waits ? make("progress", { max: 1, value: each.sent, "aria-label": `Sending ${each.name}` }) : null;
    each.node = make(
      "li", { class: "chip" }, ...namesOf(each), bar,
      button("×", () => remove(each), { "aria-label": `Remove ${each.name}` }),
    );
    if (waits) drawSent(each, each.sent);
    return each.node;
  }));
}

/** Take a document out of the draft. It stays on the server, where the panel lists it. */
function remove(each) {
  each.control.abort();
  state.documents = state.documents.filter((other) => other !== each);
  drawChips();
  measure();
  at("draft").focus();
  speak(`${each.name} is removed.`);
}

async function listDocuments() {
  let found;
  try {
    found = (await (await call("v1/files")).json()).data ?? [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return; // the model's part of the panel says so
  }
  at("documents-part").hidden = found.length === 0;
  at("documents").replaceChildren(...found.map(({ id, filename: name, longreach: own }) => {
    const each = { name, id, tokens: own?.tokens ?? null, sent: 1, control: new AbortController() };
    const attachIt = button("Attach", () => attachAgain(each), { "aria-label": `Attach ${name}` });
    const deleteIt = own?.library ? null : button("Delete", () => forget(each), { "aria-label": `Delete ${name}` });
    return make("li", {}, ...namesOf(each), make("span", { class: "row" }, attachIt, deleteIt));
  }));
}

function attachAgain(each) {
  if (!state.documents.some(({ id }) => id === each.id)) state.documents.push(each);
  drawChips();
  measure();
  showPanel(false);
  at("draft").focus();
}

/** Delete a document from the server. Turns that have it say so. */
async function forget({ id, name }) {
  at("documents-trouble").replaceChildren();
  try {
    await call(`v1/files/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return void complain("documents-trouble", `${name}: ${error.message}`);
  }
  state.documents = state.documents.filter((each) => each.id !== id);
  for (const turn of state.turns) {
    for (const each of turn.documents.filter((other) => other.id === id)) {
      each.gone = true;
      turn.node.replaceWith(drawnTurn(turn));
    }
  }
  drawChips();
  measure();
  listDocuments();
  at("documents-head").focus();
  speak(`${name} is deleted.`);
}

function addFiles(list) {
  clearTrouble();
  for (const file of list) addFile(file);
}

function pasted(event) {
  const files = [...event.clipboardData.files];
  const text = event.clipboardData.getData("text/plain");
  if (files.length && !text) {
    event.preventDefault();
    addFiles(files);
  } else if (text.length > PASTED) {
    event.preventDefault();
    const taken = new Set(state.documents.map(({ name }) => name));
    let count = 1;
    while (taken.has(`Pasted text ${count}.txt`)) count += 1;
    clearTrouble();
    addFile(new Blob([text], { type: "text/plain" }), `Pasted text ${count}.txt`);
  }
}

// ---------------------------------------------------------------- The meter of the window

const counted = new Map(); // text -> tokens, of this model
let counting = { timer: null, control: new AbortController() };

async function count(text, signal) {
  if (!text) return 0;
  const name = `${state.model.id}\n${text}`;
  if (!counted.has(name)) {
    const reply = await call("tokenize", { method: "POST", body: { model: state.model.id, prompt: text }, signal });
    if (counted.size > 500) counted.clear();
    counted.set(name, (await reply.json()).count);
  }
  return counted.get(name);
}

/** Count anew, once the keys have been still for a while. */
function measure() {
  clearTimeout(counting.timer);
  counting.control.abort();
  counting = { control: new AbortController(), timer: setTimeout(countAll, PAUSE) };
}

async function countAll() {
  if (!state.model) return;
  const { signal } = counting.control;
  try {
    const [talk, draft] = [await countTalk(signal), await count(at("draft").value.trim(), signal)];
    if (!signal.aborted) drawMeter({ ...talk, draft });
  } catch (error) {
    if (error instanceof Refusal) at("meter-words").textContent = `The window cannot be measured: ${error.message}`;
    else if (error.name !== "AbortError") throw error;
  }
}

/** Tokens of the conversation: as the server counted them for the last answer; where a workflow read for it, each text by itself. */
async function countTalk(signal) {
  const draftDocuments = state.documents.reduce((sum, each) => sum + (each.tokens ?? 0), 0);
  const last = state.turns.findLast((turn) => turn.versions);
  const { usage, ledger } = last ? version(last).facts : {};
  if (usage && !ledger && !version(last).open) return { talk: usage.total_tokens, documents: draftDocuments };
  let talk = 0;
  for (const words of [at("system").value.trim(), ...state.turns.map((turn) => contentOf(turn) ?? "")]) talk += await count(words, signal);
  const before = state.turns.flatMap((turn) => turn.documents).filter((each) => !each.gone);
  return { talk, documents: before.reduce((sum, each) => sum + (each.tokens ?? 0), draftDocuments) };
}

function drawMeter({ talk, documents: attached, draft }) {
  const { window: reach, trained_window: trained } = serving();
  const read = at("read").value.trim();
  const apart = Boolean(read && reach && attached && talk + attached + draft > reach); // read in parts, not in the prompt
  const parts = { talk, documents: apart ? 0 : attached, draft };
  const all = parts.talk + parts.documents + parts.draft;
  const scale = Math.max(1, reach ?? 0, trained ?? 0, all);
  const over = reach ? Math.max(0, all - reach) : 0;
  const words = meterWords(parts, { all, over, apart: apart ? attached : 0 });
  for (const [name, part] of Object.entries(parts)) at("meter").querySelector(`.${name}`).style.width = `${100 * part / scale}%`;
  mark("trained", trained ? trained / scale : null);
  mark("end", over ? reach / scale : null);
  for (const id of ["meter", "meter-words"]) at(id).classList.toggle("full", over > 0 && !shortener());
  at("trained-words").hidden = !trained;
  at("trained-words").textContent = `trained on ${number(trained ?? 0)}`;
  for (const [name, value] of [["max", scale], ["now", all], ["text", words]]) at("meter").setAttribute(`aria-value${name}`, String(value));
  at("meter-words").textContent = words;
}

/** The policy that makes a conversation fit, where one is set. */
function shortener() {
  const policy = at("overflow").value.trim();
  return policy === "refuse" ? "" : policy;
}

function meterWords({ talk, documents, draft }, { all, over, apart }) {
  const { window: reach, trained_window: trained } = serving();
  const parts = [["conversation", talk], ["documents", documents], ["draft", draft]].filter(([, part]) => part);
  const words = [reach ? `${number(all)} of ${tokens(reach)}` : tokens(all)];
  if (parts.length) words[0] += `: ${parts.map(([name, part]) => `${name} ${number(part)}`).join(", ")}`;
  words[0] += ".";
  if (apart) words.push(`The documents, ${tokens(apart)}, do not fit: ${at("read").value.trim()} reads them.`);
  if (over && shortener()) words.push(`${number(over)} too many: ${shortener()} shortens the conversation.`);
  else if (over) words.push(`${number(over)} too many: they have to be read by a workflow, or left out.`);
  else if (trained && all > trained) words.push(`${number(all - trained)} past what the model was trained on.`);
  return words.join(" ");
}

function mark(id, place) {
  at(id).hidden = place === null;
  if (place !== null) at(id).style.left = `${100 * place}%`;
}

// ---------------------------------------------------------------- The model and its card

async function meet() {
  at("model-trouble").replaceChildren();
  try {
    state.models = (await (await call("v1/models")).json()).data ?? [];
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    complain("model-trouble", error.message, button("Try again", meet));
    at("serving").textContent = "no model";
    if (error.status === 401) reveal("key");
    return;
  }
  state.model = state.models.find(({ id }) => id === state.model?.id) ?? state.models[0] ?? null;
  if (!state.model) return void complain("model-trouble", "The server lists no model.");
  drawModel();
  listDocuments();
}

function drawModel() {
  const { id } = state.model;
  at("serving").textContent = id;
  document.title = `${id} · longreach`;
  const choices = state.models.map((each) => make("option", { value: each.id }, each.id));
  const choice = make("select", { id: "which", "aria-label": "Model" }, ...choices);
  choice.value = id;
  choice.addEventListener("change", () => {
    state.model = state.models.find((each) => each.id === choice.value);
    drawModel();
    at("which").focus();
  });
  const parts = [state.models.length > 1 ? choice : null, drawnAbout(serving()), drawnProfiles(serving()), drawnCard(serving().card, id)];
  at("model").replaceChildren(...parts.filter(Boolean));
  for (const name of ["read", "overflow"]) {
    at(`${name}-specs`).replaceChildren(...specs(name).map(({ spec, summary }) => make("option", { value: spec }, summary ?? "")));
  }
  measure();
}

function drawnAbout(own) {
  const rows = state.models.length > 1 ? [] : [["Name", state.model.id]];
  if (own.window !== undefined) rows.push(["Window", own.window === null ? "without end" : tokens(own.window)]);
  if (own.trained_window) rows.push(["Trained on", tokens(own.trained_window)]);
  if (own.method !== undefined) rows.push(["Method", own.method ? breakable(own.method) : "none"]);
  if (own.template === "plain") rows.push(["Template", "plain: the model has no chat template"]);
  return make("dl", { class: "plain-list" }, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, ...[value].flat())]));
}

function drawnProfiles({ profiles = [] }) {
  if (profiles.length < 2) return null;
  const rows = profiles.map((each) => [
    { content: each.method ? breakable(each.method) : "the model as it is" },
    { content: each.window === null ? "without end" : number(each.window), kind: "number" },
  ]);
  const heads = [{ content: "Answered by" }, { content: "Tokens, up to", kind: "number" }];
  const head = make("h3", { id: "profiles-head" }, "Profiles");
  return make("div", { class: "part" }, head, sheet({ "aria-labelledby": "profiles-head" }, heads, rows));
}

/** Usable length by ability, as `longreach card` measured it; of several methods side by side. */
function drawnCard(card, id) {
  const cards = card?.cards ?? (card ? [card] : []);
  const head = make("h3", { id: "card-head" }, "Usable length");
  if (!cards.length) {
    const command = make("code", {}, `longreach card ${id}`);
    return make("div", { class: "part" }, head, make("p", { class: "note" }, "No card measured; run ", command, "."));
  }
  const abilities = Object.keys(ABILITIES).filter((name) => cards.some((each) => abilityOf(each, name)));
  const columns = cards.map((each) => ({ content: cards.length > 1 ? breakable(each.method || "as it is") : "Up to" }));
  const rows = abilities.map((name) => [{ content: ABILITIES[name] }, ...cards.map((each) => drawnAbility(abilityOf(each, name)))]);
  const lengths = [...new Set(cards.flatMap((each) => each.lengths))].sort((one, other) => one - other).map(short);
  const under = cards.length === 1 && cards[0].method ? ` under ${cards[0].method}` : "";
  return make(
    "div", { class: "part" }, head, sheet({ "aria-labelledby": "card-head" }, [{ content: "Ability" }, ...columns], rows),
    make("p", { class: "note" }, `Measured at ${lengths.join(", ")} ${cards[0].unit ?? "tokens"}${under}.`),
  );
}

function abilityOf(card, name) {
  return (card.abilities ?? []).find(({ ability }) => ability === name);
}

function drawnAbility(found) {
  if (!found) return { content: "not asked", kind: "soft" };
  if (found.usable === null) return { content: "at chance", kind: "soft" };
  if (!found.steps?.length) return { content: "cannot be told", kind: "soft" };
  const whole = found.usable === found.steps.at(-1).length;
  const usable = make("strong", {}, `${short(found.usable)}${whole ? " or more" : ""}`);
  if (whole) return { content: usable };
  return { content: [usable, make("small", {}, found.missed_at ? `short at ${short(found.missed_at)}` : "then open")] };
}

/** 32768 -> 32k, as the command line writes it. */
function short(length) {
  if (length && length % (1 << 20) === 0) return `${length >> 20}M`;
  return length && length % 1024 === 0 ? `${length / 1024}k` : String(length);
}

// ---------------------------------------------------------------- Saving and loading: a list of messages, as `longreach chat` keeps them

/** Every message with its text; what only this page knows of it stands in a key of its own. */
function saved() {
  return [...systemMessages(), ...state.turns.map((turn) => {
    if (turn.versions) return { ...wired(turn), longreach: version(turn).facts };
    const documents = turn.documents.map(({ name, id, tokens: size }) => ({ name, id, tokens: size }));
    return { ...turn.message, ...(documents.length ? { longreach: { documents } } : {}) };
  })];
}

function save() {
  at("kept-trouble").replaceChildren();
  if (!state.turns.length) return void complain("kept-trouble", "There is nothing to save yet.");
  const address = URL.createObjectURL(new Blob([`${JSON.stringify(saved(), null, 2)}\n`], { type: "application/json" }));
  const day = new Date().toISOString().slice(0, 16).replace("T", "-").replace(":", "");
  make("a", { href: address, download: `conversation-${day}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  state.unsaved = false;
}

/** The messages of a file. Raises: Refusal for anything else. */
function parsed(text, name) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Refusal(`${name} is not JSON; it has to be a list of messages.`);
  }
  if (!Array.isArray(found)) throw new Refusal(`${name} has to hold a list of messages.`);
  found.forEach((each, index) => {
    const where = `${name}: message ${index + 1}`;
    if (!["system", "user", "assistant", "tool"].includes(each?.role)) throw new Refusal(`${where} has no role.`);
    const may = each.role === "assistant" && each.tool_calls?.length && (each.content ?? null) === null;
    if (typeof each.content !== "string" && !may) throw new Refusal(`${where}: its content is no text.`);
  });
  return found;
}

function turnOf({ longreach: own, ...message }) {
  if (message.role === "assistant") {
    return { message, documents: [], shown: 0, versions: [{ text: message.content ?? "", facts: own ?? {}, ended: "", open: false }] };
  }
  const documents = (own?.documents ?? []).map((each) => ({ ...each, gone: false, sent: 1, control: new AbortController() }));
  return { message, documents };
}

async function load(file) {
  at("kept-trouble").replaceChildren();
  try {
    const found = parsed(await file.text(), file.name);
    const first = found.findIndex(({ role }) => role !== "system");
    const upto = first < 0 ? found.length : first;
    const turns = found.slice(upto).map(turnOf);
    await findDocuments(turns.flatMap((turn) => turn.documents));
    change({ turns, system: found.slice(0, upto).map(({ content }) => content).join("\n\n") }, file.name);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return void complain("kept-trouble", error.message);
  }
  state.unsaved = false;
  speak(`The conversation in ${file.name} is open.`);
}

/** Mark the documents that the server does not have any more. */
async function findDocuments(documents) {
  for (const each of documents) {
    try {
      await call(`v1/files/${encodeURIComponent(each.id)}`);
    } catch (error) {
      if (error.status !== 404) throw error;
      each.gone = true;
    }
  }
  const gone = documents.filter((each) => each.gone).map(({ name }) => name);
  if (gone.length) complain("kept-trouble", `Not on the server any more, and not read: ${gone.join(", ")}. Attach it again.`);
}

/** Show another conversation, and offer the one before. Args: source: the other one's file. Raises: Refusal for what cannot be drawn. */
function change(other, source = "") {
  const before = { turns: state.turns, system: at("system").value };
  try {
    show(other);
  } catch (error) {
    show(before);
    if (!(error instanceof TypeError)) throw error;
    throw new Refusal(`${source}: what it says under "longreach" is not what this page saves.`);
  }
  if (!before.turns.length) return;
  const back = button("Bring it back", unlessWriting(() => change(before)));
  at("kept-trouble").append(make("p", { class: "line plain" }, make("span", {}, "The conversation before is still here."), back));
}

function show({ turns, system }) {
  state.turns = turns;
  state.unsaved = turns.length > 0;
  at("system").value = system;
  clearTrouble();
  drawTurns();
  measure();
}

function unlessWriting(act) {
  return () => {
    at("kept-trouble").replaceChildren();
    if (state.writing) complain("kept-trouble", "Stop the answer first.");
    else act();
  };
}

function startAnew() {
  change({ turns: [], system: at("system").value });
  at("draft").focus();
}

// ---------------------------------------------------------------- Events

function stop() {
  state.writing?.control.abort();
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
at("draft").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (state.writing) speak("An answer is being written. Escape stops it.");
  else send();
});
at("draft").addEventListener("input", () => {
  fitDraft();
  measure();
});
at("draft").addEventListener("paste", pasted);
at("stop").addEventListener("click", stop);
at("attach").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", () => {
  addFiles([...at("files").files]);
  at("files").value = "";
});
at("panel-toggle").addEventListener("click", () => showPanel(!at("panel").classList.contains("open")));
at("new").addEventListener("click", unlessWriting(startAnew));
at("save").addEventListener("click", save);
at("load").addEventListener("click", unlessWriting(() => at("loaded").click()));
at("loaded").addEventListener("change", unlessWriting(() => {
  if (at("loaded").files[0]) load(at("loaded").files[0]);
  at("loaded").value = "";
}));
at("settings-form").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["system", "read", "overflow"]) at(id).addEventListener("input", measure);
at("key").value = secret.key;
at("keep-key").checked = Boolean(secret.key);
at("settings-form").addEventListener("change", (event) => {
  if (!["key", "keep-key"].includes(event.target.id)) return;
  secret.key = at("key").value.trim();
  if (at("keep-key").checked && secret.key) sessionStorage.setItem("longreach.key", secret.key);
  else sessionStorage.removeItem("longreach.key");
  if (event.target.id === "key") meet();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  at("box").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("box").classList.remove("over");
});
addEventListener("drop", (event) => {
  at("box").classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  addFiles([...event.dataTransfer.files]);
});
addEventListener("beforeunload", (event) => {
  if (state.unsaved && state.turns.length) event.preventDefault();
});

mark("trained", null);
mark("end", null);
fitDraft();
meet();
