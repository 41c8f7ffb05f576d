// The views of jobs: the list, one job, a new one. Its form is made from the schema of the settings, with their texts.
"use strict";

const JOB_STATES = { complete: "good", failed: "bad", interrupted: "bad" };
const OPEN_STATES = ["queued", "starting", "running", "cancelling"];
// What a request may never choose.
const LEFT_OUT = ["cache.storage_options"];
// What every job needs, and what is looked at first.
const NEEDED = ["output", "model.path", "data.path"];
const JOB_MS = 1000;

const job_mark = (state) => make("span", { class: `state ${JOB_STATES[state] || "open"}` }, state);
const run_of = (job) => (job.has_run ? link({ run: job.run }, job.name) : job.name);

async function act(path, body) {
  const headers = { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) };
  const answer = await fetch(path, { method: "POST", headers, body: body === undefined ? undefined : JSON.stringify(body) });
  return read_answer(answer);
}

// The link in the head of every view, where there are jobs.
async function show_jobs_link() {
  const { has_jobs } = await ask("api/v1/access");
  document.querySelector("#jobs").hidden = !has_jobs;
}

// An error of what was typed, as the service tells them.
const refusal = (words) => Object.assign(new Error(words), { is_told: true });

// What a person is told of a request that failed, and can do about it.
function trouble(error) {
  if (error.status === 401) return make("p", { class: "told bad", role: "status" }, "You are signed out, as after the service was started again. ", make("a", { href: location.href }, "Sign in again"), " with a token, or open the address that it printed.");
  if (!error.is_told) return told("bad", "The service does not answer. What is shown here is from before; it is asked again every second.");
  return told("bad", error.message);
}

// Look again and again, also after a request has failed, until a look returns false: another view is shown.
function keep_looking(look, wrong) {
  setTimeout(async () => {
    let goes_on = true;
    if (!document.hidden) {
      try {
        goes_on = await look() !== false;
        wrong.replaceChildren();
      } catch (error) {
        const fresh = trouble(error);
        if (!wrong.firstChild?.isEqualNode(fresh)) wrong.replaceChildren(fresh);
      }
    }
    if (goes_on) keep_looking(look, wrong);
  }, JOB_MS);
}

// Where a run is damaged, and who looks at it may act: a button that has the damaged blocks computed again.
function repair_part(id) {
  const part = make("div");
  const repair = () => act("api/v1/jobs/repair", { run: id }).then((job) => { location.search = query({ view: "job", job: job.id }); }).catch((error) => part.append(told("bad", error.message)));
  ask("api/v1/access").then(({ may_act }) => { if (may_act) part.append(make("button", { type: "button", class: "act", onclick: repair }, "Repair")); });
  return part;
}

async function show_jobs() {
  const asked = { state: here.get("state"), offset: Number(here.get("offset") || 0) };
  const [access, answer] = await Promise.all([ask("api/v1/access"), ask("api/v1/jobs", { ...asked, limit: 100 })]);
  const fresh = access.may_act ? make("p", {}, link({ view: "new-job" }, "New job")) : told("open", "You may look at jobs. To start one, sign in with a token that may act.");
  const columns = [
    { title: "Job", number: true, cell: (j) => link({ view: "job", job: j.id }, String(j.id)), by: (j) => j.id },
    { title: "State", cell: (j) => job_mark(j.state), by: (j) => j.state },
    { title: "Run", cell: run_of, by: (j) => j.name },
    { title: "Kind", cell: (j) => j.kind, by: (j) => j.kind },
    { title: "Submitted (UTC)", number: true, cell: (j) => when(j.submitted_s), by: (j) => j.submitted_s },
    { title: "Ended (UTC)", number: true, cell: (j) => (j.ended_s === null ? "-" : when(j.ended_s)), by: (j) => j.ended_s },
    { title: "What there is to say", cell: (j) => j.message },
  ];
  const page = (offset, name) => link({ view: "jobs", ...asked, offset }, name);
  const list = table(columns, answer.jobs, "Jobs"), last = answer.offset + answer.jobs.length;
  const silence = make("div");
  show("Jobs", silence, fresh, make("p", { class: "note" }, `At most ${answer.n_at_once} at the same time.`),
    answer.n_total ? list : told("open", "There is no job yet."),
    make("p", { class: "links" }, answer.offset ? page(Math.max(0, answer.offset - 100), "later ones") : null, last < answer.n_total ? page(last, "earlier ones") : null),
    make("pre", {}, "curl -H \"Authorization: Bearer $(cat jobs-token)\" -H 'Content-Type: application/toml' \\\n  --data-binary @job.toml ADDRESS/api/v1/jobs"));
  const look = async () => {
    const newer = await ask("api/v1/jobs", { ...asked, limit: 100 });
    if (JSON.stringify(newer.jobs.map((j) => j.id)) === JSON.stringify(answer.jobs.map((j) => j.id))) list.renew(newer.jobs);
    else if (!document.querySelector("main :focus")) return show_jobs().then(() => false);
    return true;
  };
  keep_looking(look, silence);
}

async function show_job(id) {
  const path = `api/v1/jobs/${encodeURIComponent(id)}`;
  const access = await ask("api/v1/access");
  const state = make("p", { role: "status" }), facts = make("dl", { class: "facts" }), log = make("pre", { tabindex: "0", "aria-label": "Log" }), bar = make("div"), buttons = make("p", { class: "links" }), wrong = make("div");
  const silence = make("div");
  let job = null, followed = null;
  // Progress in the folder may be that of an earlier attempt, which another process has told.
  const is_now = (told_state) => job.kind !== "run" || (["running", "cancelling"].includes(job.state) && told_state.pid === job.pid);
  const change = (verb) => make("button", { type: "button", class: "act", onclick: () => act(`${path}/${verb.toLowerCase()}`).then(() => wrong.replaceChildren()).then(look_once).catch((error) => wrong.replaceChildren(trouble(error))) }, verb);
  const look_once = async () => {
    const before = job, was_silent = silence.hasChildNodes();
    const [found, printed] = await Promise.all([ask(path), ask(`${path}/log`)]);
    job = found;
    const is_open = OPEN_STATES.includes(job.state);
    state.replaceChildren(job_mark(job.state), job.message ? ` ${job.message}` : "");
    const known = { Run: run_of(job), Kind: job.kind, "Submitted (UTC)": when(job.submitted_s), "Ended (UTC)": job.ended_s === null ? null : when(job.ended_s), Attempts: job.attempt, Process: job.pid, "Exit code": job.exit_code };
    facts.replaceChildren(...Object.entries(known).filter(([, v]) => v !== null).map(([name, v]) => make("div", {}, make("dt", {}, name), make("dd", {}, v instanceof Node ? v : String(v)))));
    const said = (printed.is_cut ? "...\n" : "") + printed.text;
    if (log.textContent !== said) log.replaceChildren(said);
    if (access.may_act && before?.state !== job.state) {
      buttons.replaceChildren(is_open ? change("Cancel") : change("Resume"), job.kind === "run" ? link({ view: "new-job", from: job.id }, "New job from these settings") : "");
    }
    if (followed && (!is_open || was_silent || followed.is_over())) { followed.end(); followed = null; bar.replaceChildren(); }
    if (job.has_run && is_open && !followed) { followed = live_bar(job.run, () => {}, is_now); bar.replaceChildren(followed); }
    followed?.renew();
  };
  await look_once();
  show(`Job ${job.id}: ${job.name}`, silence, state, wrong, bar, buttons, facts, make("h2", {}, "Settings"), make("pre", {}, job.kind === "run" ? job.job_file : `actisketch verify ${shell(job.name)} --repair`),
    job.kind === "run" ? make("p", { class: "note" }, "As a job file for actisketch run, with paths from the folder that is served.") : null, make("h2", {}, "Log"), log);
  keep_looking(look_once, silence);
}

// What a setting may be: {kinds, choices, of_numbers} from its schema, without null, which stands for "left out".
function kind_of(schema) {
  const parts = (schema.anyOf || [schema]).flatMap((part) => part.anyOf || [part]).filter((part) => part.type !== "null");
  const choices = parts.flatMap((part) => part.enum || (part.const === undefined ? [] : [part.const]));
  const kinds = parts.map((part) => (part.enum || part.const !== undefined ? "choice" : part.type || "object"));
  return { kinds, choices, of_numbers: parts.some((part) => part.prefixItems?.every((each) => each.type === "integer")) };
}
const written = (value) => (typeof value === "string" ? value : JSON.stringify(value));

// Return what was typed as the setting takes it.
function typed({ kinds, choices, of_numbers }, words) {
  if (choices.includes(words)) return words;
  if (kinds.includes("boolean")) return words === "true";
  const is_number = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(words);
  if (is_number && (kinds.includes("number") || kinds.includes("integer"))) return Number(words);
  if (/^[[{]/.test(words) && (kinds.includes("array") || kinds.includes("object"))) {
    try { return JSON.parse(words); } catch { throw refusal(`${words} is not JSON`); }
  }
  if (kinds.includes("array")) {
    const parts = words.split(",").map((word) => word.trim()).filter(Boolean);
    return kinds.includes("string") && !words.includes(",") ? words : parts.map((part) => (of_numbers && /^\d+$/.test(part) ? Number(part) : part));
  }
  return words;
}

// What stands in an empty field: the default, or an example where the default is not a value.
function hint(schema) {
  if (schema.default !== undefined && schema.default !== null) return written(schema.default);
  return schema.examples ? `for example ${written(schema.examples[0])}` : "";
}

function field_of(key, schema, given) {
  const kind = kind_of(schema), id = `set-${key}`, about = `${id}-text`;
  // A request may have left a setting out by null.
  const chosen = given === undefined || given === null ? "" : written(given);
  const only = kind.kinds.every((each) => each === "choice" || each === "boolean");
  const options = kind.kinds.includes("boolean") ? ["true", "false"] : kind.choices;
  const empty = schema.default === undefined || schema.default === null ? "default" : `default: ${written(schema.default)}`;
  const control = only
    ? make("select", { id, name: key, "aria-describedby": about }, make("option", { value: "" }, empty), ...options.map((each) => make("option", { value: each, selected: String(each) === chosen }, each)))
    : make("input", { id, name: key, value: chosen, "aria-describedby": about, autocomplete: "off", spellcheck: "false", required: NEEDED.includes(key), placeholder: hint(schema) });
  const read = () => (control.value.trim() === "" ? undefined : typed(kind, control.value.trim()));
  return { key, read, node: make("div", { class: "setting" }, make("label", { for: id }, key.split(".").pop()), control, make("p", { class: "note", id: about }, schema.description || "")) };
}

// Return the fields of all settings, and one element for each table.
function settings_form(schemas, given) {
  const fields = [], whole = schemas.JobSettings.properties;
  const add = (key, schema, value) => { const field = field_of(key, schema, value); fields.push(field); return field.node; };
  const tables = Object.entries(whole).filter(([, schema]) => schema.$ref).map(([name, schema]) => {
    const inner = schemas[schema.$ref.split("/").pop()], values = given[name] || {};
    const nodes = Object.entries(inner.properties).filter(([key]) => !LEFT_OUT.includes(`${name}.${key}`)).map(([key, one]) => add(`${name}.${key}`, one, values[key]));
    const is_open = NEEDED.some((key) => key.startsWith(`${name}.`)) || Object.keys(values).length > 0;
    return make("details", { open: is_open }, make("summary", {}, name), make("p", { class: "note" }, inner.description || ""), ...nodes);
  });
  return { fields, nodes: [add("output", whole.output, given.output), ...tables] };
}

function tree_of(fields) {
  const tree = {};
  for (const { key, read } of fields) {
    const value = read(), [table, name] = key.split(".");
    if (value === undefined) continue;
    if (name === undefined) tree[table] = value;
    else (tree[table] ??= {})[name] = value;
  }
  return tree;
}

function plan_view({ plan, refusal, warnings, job_file }) {
  const facts = { Samples: count(plan.n_samples), Points: plan.points.length, Blocks: count(plan.n_blocks), "Samples in a batch": plan.batch_size, "Size on disk": bytes(plan.disk_nbytes), Memory: bytes(plan.memory.total), "Memory limit": bytes(plan.memory_limit) };
  const columns = [
    { title: "Layer", cell: (p) => p.name, by: (p) => plan.points.indexOf(p) },
    { title: "Type", cell: (p) => p.layer_type, by: (p) => p.layer_type },
    { title: "Shape", cell: (p) => p.shape.join("x") || "1" },
    { title: "Size", number: true, cell: (p) => bytes(p.nbytes), by: (p) => p.nbytes },
  ];
  return [make("h2", {}, "Plan"), refusal ? told("bad", refusal) : told("good", "It fits: nothing was run or written yet."), ...warnings.map((warning) => told("open", warning)),
    make("dl", { class: "facts" }, ...Object.entries(facts).map(([name, v]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(v))))),
    table(columns, plan.points, "Points to record"), make("h2", {}, "As a job file"), make("pre", {}, job_file)];
}

async function show_new_job() {
  const from = here.get("from");
  const [schemas, model] = await Promise.all([ask("api/v1/jobs/schema"), from ? ask(`api/v1/jobs/${encodeURIComponent(from)}`) : { settings: {} }]);
  const { fields, nodes } = settings_form(schemas, model.settings);
  const shown = make("section", { "aria-live": "polite" });
  const submit = make("button", { type: "button", class: "act", disabled: true, onclick: () => send("api/v1/jobs", (job) => { location.search = query({ view: "job", job: job.id }); }) }, "Submit");
  const plan = make("button", { class: "act" }, "Plan");
  async function send(path, done) {
    plan.disabled = submit.disabled = true;
    try {
      done(await act(path, tree_of(fields)));
    } catch (error) {
      shown.replaceChildren(trouble(error));
    }
    plan.disabled = false;
  }
  const show_plan = (found) => { shown.replaceChildren(...plan_view(found)); submit.disabled = found.refusal !== null; };
  const form = make("form", { class: "settings", onsubmit: (event) => { event.preventDefault(); shown.replaceChildren(told("open", "Planning: the network is loaded and read ...")); send("api/v1/jobs/plan", show_plan); },
    // A plan is of the settings that were planned.
    oninput: () => { submit.disabled = true; } }, ...nodes, make("p", { class: "links" }, plan, submit));
  show("New job", make("p", { class: "note" }, "Paths start at the folder that is served. What is left empty has its default. The plan is shown before the job can be submitted; the output of an earlier run resumes that run."), form, shown);
}
