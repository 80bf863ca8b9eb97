// The page is a client of the public API, and of nothing else: it submits tiles, follows their jobs and shows how
// they ended. Whatever a server or a file name says goes into the page as text, never as markup.

/** Tiles on their way at the same time: a browser opens six connections to a server, and cancelling needs one. */
const LANES = 4;
/** Seconds that one request waits for a job. */
const WAIT_SECONDS = 15;
const SLOWEST_RETRY_SECONDS = 30;
/** Seconds between two counts that are read aloud, where a screen reader is, while tiles are open. */
const TOLD_EVERY_SECONDS = 15;
/** The server is busy or away, as itself or a proxy before it says. */
const TEMPORARY = new Set([408, 429, 502, 503, 504]);
const KEPT = "histoqueue.jobs";
const KEY = "histoqueue.key";
const FINAL = new Set(["succeeded", "failed", "canceled", "expired"]);
const REASONS = {
  low_confidence: "The confidence is under the model's threshold.",
  background: "Much of the image is as bright as an empty slide.",
  blurred: "Too little fine detail.",
  out_of_domain: "Its colours or its fine detail are far from those of the training tiles.",
  unfamiliar: "What the network made of it is far from what it made of the training tiles.",
  scale_mismatch: "Its scale does not suit the training tiles.",
};

const root = document.body.dataset.root;
const $ = (id) => document.getElementById(id);
const rows = [];
const waiting = [];
const memory = new Map();
let lanes = 0;
let labels = {};
let keyGiven = null;
let telling = null;

/** Ask the server, and again while it is away, busy, or wants a key. `say` gets a word about each wait. */
async function ask(path, options = {}, say = () => {}) {
  for (let tries = 0; ; tries += 1) {
    const key = recall(KEY);
    const headers = { Accept: "application/json", ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
    const answer = await fetch(path, { ...options, headers, cache: "no-store" }).catch(() => null);
    if (answer?.ok) return answer;
    if (!answer && options.file) await checkReadable(options.file);
    const problem = await problemOf(answer);
    if (answer?.status === 401 || (answer?.status === 403 && key)) {
      say("It waits for an API key.");
      const refused = answer.status === 403 ? problem.detail : "The server does not know this key.";
      // One that was given since then has not been tried.
      if (key === recall(KEY)) await askForKey(key && refused);
    } else if (!answer || TEMPORARY.has(answer.status)) {
      const seconds = Number(answer?.headers.get("Retry-After")) || Math.min(2 ** tries, SLOWEST_RETRY_SECONDS);
      say(`${answer ? `${problem.title}.` : "The server does not answer."} Again in ${seconds} s.`);
      await new Promise((resolve) => { setTimeout(resolve, seconds * 1000); });
    } else {
      throw new Error(problem.detail ? `${problem.title}. ${problem.detail}` : problem.title);
    }
  }
}

/** Return what this tab keeps over a reload. */
function recall(name) {
  try {
    return sessionStorage.getItem(name);
  } catch {
    return memory.get(name) ?? null;
  }
}

/** Keep it, in this page alone where the browser keeps nothing for a site, or no more. */
function keep(name, value) {
  memory.set(name, value);
  try {
    sessionStorage.setItem(name, value);
  } catch {
    // The jobs are on the server all the same.
  }
}

/** Fail for a file that a request could not send: to the request that looks like a server that is away. */
async function checkReadable(file) {
  const reader = file.stream().getReader();
  await reader.read().catch(() => {
    throw new Error("It cannot be read: it is a folder, or was moved or changed since it was given.");
  });
  await reader.cancel();
}

/** Return the server's own object (RFC 9457), or something like it where another program answers. */
async function problemOf(answer) {
  const nothing = { title: `The server answered ${answer?.status}` };
  try {
    return { ...nothing, ...await answer.json() };
  } catch {
    return nothing;
  }
}

/** Show the form for a key; the same promise for everybody who waits for one. */
function askForKey(refused) {
  if (!keyGiven) {
    $("access").hidden = false;
    $("refused").textContent = refused ?? "";
    $("key").focus();
    keyGiven = new Promise((resolve) => {
      $("access").addEventListener("submit", (event) => {
        event.preventDefault();
        keep(KEY, $("key").value.trim());
        $("key").value = "";
        $("access").hidden = true;
        giveFocusBack([$("files")]);
        keyGiven = null;
        resolve();
      }, { once: true });
    });
  }
  return keyGiven;
}

/** A tile: its file, where there is one, the job that the server made of it, and its place in the list. */
class Row {
  constructor(name, file = null, options = {}) {
    Object.assign(this, { name, file, options, job: null, said: "", wrong: false, gone: false, turn: 0 });
    // The same for every repetition of this submission, so that it makes one job whatever is lost on the way.
    this.idempotencyKey = randomName();
    this.element = document.importNode($("row").content.firstElementChild, true);
    this.part("name").textContent = name;
    for (const control of this.part("actions").children) {
      control.setAttribute("aria-label", `${control.textContent}, ${name}`);
    }
    if (file) this.picture("tile", file, "");
    this.on("cancel", () => this.act("cancel"));
    this.on("retry", () => this.act("retry"));
    this.on("delete", () => this.forget());
    this.on("show-map", () => this.toggleMap());
    $("list").prepend(this.element);
    this.show();
  }

  part(name) {
    return this.element.querySelector(`.${name}`);
  }

  on(name, action) {
    const button = this.part(name);
    button.addEventListener("click", async () => {
      const hadFocus = document.activeElement === button;
      const next = this.element.nextElementSibling ?? this.element.previousElementSibling;
      button.disabled = true;
      this.note("");
      await action().catch((error) => this.note(error.message));
      button.disabled = false;
      if (hadFocus) giveFocusBack([button, ...buttonsIn(this.element), ...buttonsIn(next), $("files")]);
    });
  }

  /** Show an image, where the browser can: it has no TIFF. */
  async picture(name, blob, text) {
    const image = this.part(name);
    image.src = URL.createObjectURL(blob);
    image.alt = text;
    image.hidden = !await image.decode().then(() => true, () => false);
    return !image.hidden;
  }

  note(text) {
    this.part("note").textContent = text;
    this.part("note").hidden = !text;
  }

  get isOpen() {
    return !this.gone && !this.wrong && !(this.job && FINAL.has(this.job.status));
  }

  say(text, wrong = false) {
    this.said = text;
    this.wrong = wrong;
    this.show();
  }

  /** Submit it, and follow its job to the end. */
  async carry() {
    const { turn } = this;
    try {
      if (!this.job) this.take(await this.submit());
      while (this.isOpen && turn === this.turn) {
        const answer = await ask(`${this.job.links.self}?wait=${WAIT_SECONDS}`, {}, (text) => this.say(text));
        const job = await answer.json();
        // What was asked before somebody canceled it, or tried it again, is no longer so.
        if (turn === this.turn) this.take(job);
      }
    } catch (error) {
      this.say(error.message, true);
    }
  }

  async submit() {
    const form = new FormData();
    form.append("file", this.file, this.name);
    for (const [name, value] of Object.entries(this.options)) form.append(name, value);
    const headers = { "Idempotency-Key": this.idempotencyKey };
    const options = { method: "POST", body: form, headers, file: this.file };
    this.say("On its way.");
    return (await ask(`${root}/predict`, options, (text) => this.say(text))).json();
  }

  take(job) {
    this.job = job;
    this.said = "";
    this.wrong = false;
    remember();
    this.show();
  }

  async act(link) {
    const answer = await ask(this.job.links[link], { method: "POST" });
    this.turn += 1;
    this.take(await answer.json());
    if (this.isOpen) enqueue(this);
  }

  async forget() {
    if (!window.confirm(`Delete ${this.name} and what was found in it from the server?`)) return;
    await ask(this.job.links.self, { method: "DELETE" });
    this.leave();
  }

  /** Take it off the page. */
  leave() {
    if (this.gone) return;
    this.gone = true;
    this.element.remove();
    for (const image of this.element.querySelectorAll("img[src]")) URL.revokeObjectURL(image.src);
    rows.splice(rows.indexOf(this), 1);
    remember();
    summarise();
  }

  async toggleMap() {
    const map = this.part("map");
    if (!map.src) {
      const answer = await ask(this.job.links.heatmap, { headers: { Accept: "image/png" } });
      const isShown = await this.picture("map", await answer.blob(), "Where the network looked, not why");
      if (!isShown) throw new Error("The heat map cannot be shown.");
    } else {
      map.hidden = !map.hidden;
    }
    this.part("show-map").setAttribute("aria-pressed", String(!map.hidden));
  }

  show() {
    const { job } = this;
    const result = job?.result;
    const outcome = this.part("outcome");
    outcome.textContent = this.said || (job ? outcomeOf(job) : "It waits for its turn on this page.");
    outcome.classList.toggle("wrong", this.wrong || job?.status === "failed");
    outcome.classList.toggle("verdict", !this.said && Boolean(result));
    list(this.part("probabilities"), Object.entries(result?.probabilities ?? {}), probability);
    list(this.part("reasons"), result?.reasons ?? [], (reason) => [REASONS[reason] ?? reason]);
    this.part("show-map").hidden = !(job?.status === "succeeded" && job.links.heatmap);
    this.part("cancel").hidden = !job?.links.cancel;
    this.part("retry").hidden = !job?.links.retry;
    this.part("delete").hidden = !(job && FINAL.has(job.status));
    this.part("link").hidden = !job || Boolean(recall(KEY));
    if (job) this.part("link").href = job.links.self;
    summarise();
  }
}

function buttonsIn(row) {
  return row?.querySelectorAll("button") ?? [];
}

/** Focus the first of these that can be seen, where a button that went or was disabled lost the focus. */
function giveFocusBack(elements) {
  // Neither the body nor what is hidden has an `offsetParent`.
  if (!document.activeElement.offsetParent) elements.find((element) => element.offsetParent)?.focus();
}

function outcomeOf({ status, queue, result, error }) {
  if (status === "queued") {
    const before = queue?.position == null ? "" : `, ${queue.position} before it`;
    const about = queue?.eta_seconds == null ? "" : `, about ${Math.ceil(queue.eta_seconds)} s`;
    return `In the queue${before}${about}.`;
  }
  if (status === "running") return "The network looks at it.";
  if (status === "failed" || status === "expired") return error ? `${error.title}. ${error.detail}` : "It failed.";
  if (status === "canceled") return "Canceled.";
  if (result.verdict === "rejected") return "Rejected: it gets no class.";
  const named = `${result.label}, ${percent(result.confidence)}`;
  return result.verdict === "classified" ? named : `Indeterminate; the likeliest is ${named}`;
}

function probability([name, share]) {
  const label = element("span", labels[name] ?? name);
  const meter = document.createElement("meter");
  meter.value = share;
  meter.setAttribute("aria-label", labels[name] ?? name);
  const number = element("span", percent(share));
  number.className = "share";
  return [label, meter, number];
}

function list(parent, items, partsOf) {
  parent.hidden = !items.length;
  parent.replaceChildren(...items.map((item) => {
    const entry = document.createElement("li");
    entry.append(...partsOf(item));
    return entry;
  }));
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function randomName() {
  // Not randomUUID: browsers have that on loopback and by https alone.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function enqueue(row) {
  waiting.push(row);
  while (lanes < LANES && waiting.length) {
    lanes += 1;
    run();
  }
}

async function run() {
  while (waiting.length) await waiting.shift().carry();
  lanes -= 1;
}

function submit(files) {
  // What is no number would be left out without a word.
  if (!$("mpp").reportValidity()) return;
  const given = options();
  for (const file of files) {
    const row = new Row(file.name, file, given);
    rows.push(row);
    enqueue(row);
  }
  summarise();
}

function summarise() {
  $("jobs").hidden = !rows.length;
  const found = new Map();
  for (const row of rows) {
    const said = row.isOpen ? "open" : row.wrong ? statusOf(row) : wordOf(row.job);
    found.set(said, (found.get(said) ?? 0) + 1);
  }
  const text = [...found].map(([said, count]) => `${count} ${said}`).join(", ");
  if ($("summary").textContent === text) return;
  $("summary").textContent = text;
  if (!found.has("open")) {
    tell();
  } else {
    // Tiles that were given together are told together.
    telling ??= setTimeout(tell, $("told").textContent ? TOLD_EVERY_SECONDS * 1000 : 500);
  }
}

/** Have the count read aloud: where that is done for each tile that ends, nothing else is heard. */
function tell() {
  clearTimeout(telling);
  telling = null;
  $("told").textContent = $("summary").textContent;
}

/** Return how a row stands; how a job stands that could not be asked for is not known. */
function statusOf({ job, wrong }) {
  if (wrong) return job ? "unknown" : "not submitted";
  return job?.status ?? "open";
}

function wordOf({ status, result }) {
  if (status !== "succeeded") return status;
  return result.verdict === "classified" ? result.label : result.verdict;
}

/** Keep which jobs stand on this page, for this tab alone: a reload finds them again on the server. */
function remember() {
  const kept = rows.filter((row) => row.job).map((row) => ({ name: row.name, self: row.job.links.self }));
  keep(KEPT, JSON.stringify(kept));
}

function restore() {
  for (const { name, self } of JSON.parse(recall(KEPT) ?? "[]")) {
    const row = new Row(name);
    rows.push(row);
    row.job = { status: "queued", links: { self } };
    row.said = "Looked up on the server.";
    row.show();
    enqueue(row);
  }
}

function csv() {
  const classes = [...new Set(rows.flatMap(({ job }) => Object.keys(job?.result?.probabilities ?? {})))];
  const head = ["file", "status", "class", "label", "confidence", "verdict", "reasons"];
  const tail = ["model_version", "job_id", "error", "notice"];
  const lines = rows.map((row) => {
    const { name, job, wrong, said } = row;
    const result = job?.result ?? {};
    return [
      name, statusOf(row), result.class, result.label, result.confidence, result.verdict, result.reasons?.join(" "),
      ...classes.map((item) => result.probabilities?.[item]),
      job?.model?.version, job?.id, job?.error?.detail ?? (wrong ? said : ""), document.querySelector(".notice").textContent,
    ];
  });
  return [[...head, ...classes.map((item) => `probability_${item}`), ...tail], ...lines]
    .map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

function cell(value) {
  const text = String(value ?? "");
  // A spreadsheet runs a cell that begins like this as a formula.
  const plain = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "histoqueue.csv";
  link.click();
  // Some browsers read it only after this.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function options() {
  const { explain } = $("submit").elements;
  return { ...(explain.checked && { explain: "true" }), ...($("mpp").value && { mpp: $("mpp").value }) };
}

async function describeServer() {
  const models = await (await ask(`${root}/models`, {}, (text) => { $("server").textContent = text; })).json();
  const live = models.versions.find((version) => version.live);
  labels = Object.fromEntries(live.classes.map(({ name, label }) => [name, label]));
  rows.forEach((row) => row.show());
  $("model").textContent = `Model: ${models.name} ${models.live}. `;
  if (live.links.card && !recall(KEY)) {
    const card = element("a", "What it scores, and where it fails");
    card.href = live.links.card;
    $("model").append(card);
  }
}

async function watchServer() {
  if (!document.hidden) {
    let text = "";
    try {
      const answer = await fetch(`${root}/readyz`, { cache: "no-store" });
      const { reasons = [] } = await problemOf(answer);
      text = answer.ok ? "The server is ready." : `Tiles are taken, and wait: ${reasons.join(" ")}`;
    } catch {
      text = "The server does not answer.";
    }
    if ($("server").textContent !== text) $("server").textContent = text;
  }
  setTimeout(watchServer, 10_000);
}

function main() {
  document.body.classList.add("scripted");
  const drop = $("drop");
  $("files").addEventListener("change", () => {
    submit([...$("files").files]);
    $("files").value = "";
  });
  $("submit").addEventListener("submit", (event) => event.preventDefault());
  // Anywhere: beside the frame the browser would leave this page for the image.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    submit([...event.dataTransfer.files]);
  });
  $("example").addEventListener("click", async () => {
    const blob = await (await fetch(new URL("example.png", import.meta.url))).blob();
    submit([new File([blob], "drawn-example.png", { type: "image/png" })]);
  });
  // What is on the server is found again; a file that has not been sent is this page's alone.
  window.addEventListener("beforeunload", (event) => {
    if (rows.some((row) => row.isOpen && !row.job)) event.preventDefault();
  });
  $("save").addEventListener("click", save);
  $("clear").addEventListener("click", () => {
    for (const row of rows.filter((item) => !item.isOpen)) row.leave();
    giveFocusBack([$("clear"), $("files")]);
  });
  restore();
  describeServer().catch((error) => { $("model").textContent = error.message; });
  watchServer();
}

main();
