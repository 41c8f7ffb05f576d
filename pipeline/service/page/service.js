// The views: runs, a run, a layer, two runs. Everything comes from the API below this page.
"use strict";

const main = document.querySelector("main");
const here = new URLSearchParams(location.search);
// A hundred percentiles with their intervals are fetched once: the slider moves among them without asking again.
const QS = [0, 0.1, 1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 91, 92, 93, 94, 95, 96, 97, 98,
  ...Array.from({ length: 10 }, (_, i) => 99 + i / 10), ...Array.from({ length: 9 }, (_, i) => 99.91 + i / 100), 99.995, 99.999, 100]
  .map((q) => Number(q.toFixed(3)));
const REFRESH_MS = 2000, REFRESH_IDLE_MS = 10000;

const query = (fields) => {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) for (const each of [value].flat()) if (each !== null && each !== "") asked.append(name, each);
  return asked.toString() ? `?${asked}` : "";
};
const run_path = (id) => `api/v1/runs/${encodeURIComponent(id)}`;
const path_of = (id) => id.replaceAll("~1", "/").replaceAll("~0", "~");
const link = (fields, ...children) => make("a", { href: query(fields) || "./" }, ...children);

// Errors whose reason is told are of the service; others are of the network, or of a proxy whose service is away.
async function read_answer(answer) {
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.detail || `${answer.status}`), { status: answer.status, is_told: Boolean(body.detail) });
  return body;
}

async function ask(path, fields = {}) {
  const answer = await fetch(path + query(fields), { headers: { accept: "application/json" } });
  return read_answer(answer);
}

function show(title, ...children) {
  document.title = `${title} - actisketch`;
  main.replaceChildren(make("h1", {}, title), ...children.filter(Boolean));
}
const told = (kind, words) => make("p", { class: `told ${kind}`, role: "status" }, words);
const STATES = { complete: "good", running: "open", stopped: "open", damaged: "bad" };
const state_mark = (state) => make("span", { class: `state ${STATES[state]}` }, state);

function recorded_marks(recorded) {
  const marks = recorded.damage.map((damage) => told("bad", damage));
  if (!recorded.is_complete) marks.unshift(told("open", `From ${recorded.n_blocks_done} of ${recorded.n_blocks} blocks: ${count(recorded.n_samples_done)} of ${count(recorded.n_samples)} samples.`));
  return marks;
}

// A table whose columns sort: {title, cell(row) -> text or node, by(row) -> number or text, number}. Where `asked` has the order
// of a list that is longer than the page, columns with a `key` have the service sort it.
function table(columns, rows, label, asked = null) {
  const body = make("tbody");
  const cell = (c, row) => make("td", { class: c.number ? "number" : null }, c.cell(row));
  const act = (c) => (asked ? c.key && (() => { location.search = query({ ...asked, offset: null, sort: next(c) }); }) : c.by && (() => sort(c)));
  const heads = columns.map((c) => make("th", { scope: "col", class: c.number ? "number" : null }, act(c)
    ? make("button", { type: "button", onclick: act(c) }, c.title) : c.title));
  const lines = rows.map((row) => make("tr", {}, ...columns.map((c) => cell(c, row))));
  const order = rows.map((row, i) => i);
  let last = null, down = false;
  const next = (c) => (asked.sort === (c.number ? `-${c.key}` : c.key) ? (c.number ? c.key : `-${c.key}`) : c.number ? `-${c.key}` : c.key);
  const mark = (sorted, is_down) => heads.forEach((head, i) => (columns[i] === sorted ? head.setAttribute("aria-sort", is_down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
  function sort(column) {
    down = last === column ? !down : Boolean(column.number);
    last = column;
    const value = (i) => column.by(rows[i]) ?? -Infinity;
    order.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a - b) * (down ? -1 : 1));
    mark(column, down);
    body.replaceChildren(...order.map((i) => lines[i]));
  }
  if (asked) mark(columns.find((c) => c.key === asked.sort.replace("-", "")), asked.sort.startsWith("-"));
  body.append(...lines);
  const node = make("div", { class: "wide", role: "region", tabindex: "0", "aria-label": label }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body));
  // Put the same rows with new values in their places: what has the focus keeps it.
  node.renew = (renewed) => {
    rows = renewed;
    lines.forEach((line, i) => columns.forEach((c, j) => {
      const fresh = cell(c, rows[i]);
      if (!line.children[j].isEqualNode(fresh)) line.children[j].replaceWith(fresh);
    }));
  };
  return node;
}

// How to get the same without this page.
function reproduce(command, python, downloads) {
  return make("section", {}, make("h2", {}, "The same elsewhere"),
    make("p", { class: "note" }, "On the command line, in Python (from actisketch.pipeline; paths from the folder that is served), and as a link or a file."),
    command && make("pre", {}, command), make("pre", {}, python),
    make("p", { class: "links" }, make("a", { href: location.href }, "Permalink"), ...downloads.map(([name, path, fields]) => make("a", { href: path + query(fields), download: true }, name))));
}
const shell = (word) => (/^[\w./@%+=:,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
const python_text = (word) => JSON.stringify(word);

function progress_bar(n_done, n_total) {
  if (!n_total) return "-";
  const bar = make("progress", { max: n_total, value: n_done, "aria-label": `${n_done} of ${n_total} blocks` });
  return make("span", {}, bar, ` ${n_done} of ${n_total}`);
}

async function show_runs() {
  const asked = { name: here.get("name"), model: here.get("model"), state: here.get("state"), sort: here.get("sort") || "-changed", offset: here.get("offset") || 0 };
  const look = () => ask("api/v1/runs", { ...asked, limit: 100 });
  const answer = await look();
  const part = (name, title) => make("label", {}, title, make("input", { name, type: "search", value: asked[name] || "" }));
  const form = make("form", { method: "get" }, part("name", "Name contains"), part("model", "Model contains"),
    make("label", {}, "State", make("select", { name: "state" }, ...["", "running", "complete", "stopped", "damaged"].map((s) => make("option", { value: s, selected: s === (asked.state || "") }, s || "all")))),
    make("input", { type: "hidden", name: "sort", value: asked.sort }), make("button", { class: "act" }, "Search"));
  const all = !asked.name && !asked.model && !asked.state;
  if (!answer.n_total && all) {
    show("Runs", told("open", "There is no run in this folder yet."), make("p", {}, "Make the first one in it, and it appears here:"),
      make("pre", {}, "actisketch demo --output first\nactisketch run --model network.keras --data images.npz --output runs/first"));
    return watch_runs(look, answer, null);
  }
  const columns = [
    { title: "Run", cell: (r) => (r.state === "damaged" ? r.name : link({ run: r.id }, r.name)), key: "name" },
    { title: "State", cell: (r) => state_mark(r.state), key: "state" },
    { title: "Blocks", cell: (r) => progress_bar(r.n_blocks_done, r.n_blocks) },
    { title: "Model", cell: (r) => r.model, key: "model" },
    { title: "Samples", number: true, cell: (r) => count(r.n_samples), key: "samples" },
    { title: "Points", number: true, cell: (r) => count(r.n_points) },
    { title: "Percentile", number: true, cell: (r) => text(r.percentile) },
    { title: "Activations", number: true, cell: (r) => bytes(r.activations_nbytes) },
    { title: "Changed (UTC)", number: true, cell: (r) => when(r.changed_s), key: "changed" },
  ];
  const first = answer.offset + 1, last = answer.offset + answer.runs.length;
  const page = (offset, name) => link({ ...asked, offset }, name);
  const list = table(columns, answer.runs, "Runs", asked);
  show("Runs", form, answer.is_cut ? told("bad", "There are more files in this folder than are looked at: serve a smaller one.") : null,
    answer.n_total ? list : told("open", "No run is like that."),
    make("p", { class: "links" }, answer.runs.length ? `${first} to ${last} of ${count(answer.n_total)}` : "",
      answer.offset ? page(Math.max(0, answer.offset - 100), "earlier") : null, last < answer.n_total ? page(last, "later") : null,
      make("a", { href: location.href }, "Permalink"), make("a", { href: `api/v1/runs${query({ ...asked, limit: 100 })}`, download: true }, "JSON")));
  watch_runs(look, answer, list);
}

// Look again, soon while something goes on: bars move, and new runs appear when nobody is about to press something.
function watch_runs(look, shown, list) {
  const ids = (answer) => JSON.stringify([answer.n_total, answer.runs.map((r) => r.id)]);
  const again = async () => {
    const answer = document.hidden ? shown : await look().catch(() => shown);
    if (ids(answer) !== ids(shown) && !document.querySelector("main :focus")) return start(show_runs, true);
    if (list && ids(answer) === ids(shown)) list.renew(answer.runs);
    return watch_runs(look, ids(answer) === ids(shown) ? answer : shown, list);
  };
  setTimeout(again, shown.runs.some((r) => r.state === "running") ? REFRESH_MS : REFRESH_IDLE_MS);
}

// Where `is_now` says that a state is not of the attempt that is shown, the attempt is only starting.
function live_bar(id, reload, is_now = () => true) {
  const bar = make("p", { class: "told open", role: "status" }, "Waiting for news ...");
  const source = new EventSource(`${run_path(id)}/events`);
  let n_blocks = null, last = null;
  const draw = (state) => {
    const words = !is_now(state) ? "Starting" : [state.state === "running" ? "Running" : state.state, state.stage ? `stage ${state.stage}` : null,
      state.n_total ? `${count(state.n_done)} of ${count(state.n_total)} ${state.unit}` : null, state.per_second ? `${text(state.per_second, 3)} a second` : null,
      state.left_s === null ? null : `about ${duration(state.left_s)} left`, state.error].filter(Boolean).join(", ");
    bar.replaceChildren(`${words} `, progress_bar(state.n_blocks_done, state.n_blocks));
    bar.className = `told ${!is_now(state) ? "open" : state.error ? "bad" : state.state === "complete" ? "good" : "open"}`;
  };
  const hear = (event) => {
    const state = JSON.parse(event.data);
    last = state;
    draw(state);
    if (n_blocks !== null && n_blocks !== state.n_blocks_done) reload();
    n_blocks = state.n_blocks_done;
    if (event.type === "complete" && is_now(state)) { source.close(); reload(); }
  };
  for (const name of ["progress", "failed", "complete"]) source.addEventListener(name, hear);
  source.addEventListener("problem", (event) => { bar.replaceChildren(JSON.parse(event.data).detail); source.close(); });
  bar.is_over = () => source.readyState === EventSource.CLOSED;
  // A browser asks again after an answer that broke off, and not after one that refuses.
  source.addEventListener("error", () => { if (bar.is_over() && last?.state !== "complete") bar.replaceChildren("No more news of this run come: load the page again."); });
  bar.renew = () => last && draw(last);
  bar.end = () => source.close();
  return bar;
}

async function show_run(id) {
  const q = here.get("q") || null, first = await ask(run_path(id));
  const head = make("div"), content = make("div");
  const load = async (run) => {
    head.replaceChildren(...run_head(id, run));
    const points = await ask(`${run_path(id)}/points`, { q });
    const factors = await ask(`${run_path(id)}/factors`, { percentile: q }).catch((error) => ({ points: [], remarks: [error.message] }));
    content.replaceChildren(...run_content(id, run, points, factors));
  };
  show(first.name, first.state === "complete" ? null : live_bar(id, () => start(() => ask(run_path(id)).then(load), true)), head,
    make("form", { method: "get" }, make("input", { type: "hidden", name: "run", value: id }),
      make("label", {}, "Percentile", make("input", { name: "q", type: "number", min: 0, max: 100, step: "any", value: q ?? first.settings.factors.percentile })), make("button", { class: "act" }, "Show")),
    content);
  await load(first);
}

function run_head(id, run) {
  const verdict = run.certificate_passed === null ? told("open", "No certificate of a normalised network.") : run.certificate_passed
    ? told("good", "The normalised network was certified: it computes what the original does.") : told("bad", "The certificate FAILED.");
  const facts = { Model: run.model, State: run.state, Samples: count(run.recorded.n_samples), Points: run.n_points, "Percentile of the run": run.settings.factors.percentile, "Size on disk": bytes(run.cache_nbytes), Writer: run.writer };
  return [verdict, ...run.out_of_date.map((what) => told("open", `The ${what} in the folder is out of date, or was changed.`)),
    ...(run.recorded.damage.length ? [repair_part(id)] : []),
    make("dl", { class: "facts" }, ...Object.entries(facts).filter(([, v]) => v !== null && v !== "").map(([name, v]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(v)))))];
}

function run_content(id, run, points, factors) {
  const by_name = new Map(factors.points.map((f) => [f.name, f])), shown = points.points[0]?.percentile.q;
  const factor = (p) => by_name.get(p.name)?.factor ?? null;
  const columns = [
    { title: "Layer", cell: (p) => link({ run: id, point: p.name }, p.name), by: (p) => points.points.indexOf(p) },
    { title: "Type", cell: (p) => p.layer_type, by: (p) => p.layer_type },
    { title: "Values", number: true, cell: (p) => count(p.n_values), by: (p) => p.n_values },
    { title: "Zeros", number: true, cell: (p) => share(p.n_zeros, p.n_values), by: (p) => p.n_zeros / p.n_values },
    { title: "Max", number: true, cell: (p) => text(p.maximum), by: (p) => p.maximum },
    { title: `p${shown} [lo, hi]`, number: true, cell: (p) => `${text(p.percentile.value)} [${text(p.percentile.lo)}, ${text(p.percentile.hi)}]`, by: (p) => p.percentile.value },
    { title: "Factor", number: true, cell: (p) => (Array.isArray(factor(p)) ? `${factor(p).length} channels` : text(factor(p))), by: (p) => (Array.isArray(factor(p)) ? Math.max(...factor(p)) : factor(p)) },
    { title: "Rule", cell: (p) => by_name.get(p.name)?.rule ?? "-", by: (p) => by_name.get(p.name)?.rule },
  ];
  // Who asks for a percentile gets it, whatever the method of the run.
  const path = run_path(id), q = here.get("q") ? Number(here.get("q")) : null, at = { percentile: q };
  const colours = legend(["max", "maximum"], ["percentile", `p${shown} with its interval`], ["factor", "factor"], ["zeros", "share of zeros"]);
  return [...recorded_marks(points.recorded), ...factors.remarks.map((remark) => told("open", remark)),
    make("h2", {}, "Layers over depth"), colours,
    make("div", { class: "wide", role: "region", tabindex: "0", "aria-label": "Layers over depth" }, depthPlot(points.points, by_name, (name) => { location.search = query({ run: id, point: name }); })),
    make("h2", {}, "Layers"), table(columns, points.points, "Layers"),
    reproduce(`actisketch percentiles ${shell(run.name)} -q ${shown}\nactisketch factors ${shell(run.name)}${q === null ? "" : ` --percentile ${q}`}`,
      `open_run(${python_text(run.name)}).factors(${q === null ? "" : `percentile=${q}`}).by_point()`,
      [["Factors, JSON", `${path}/factors`, at], ["Factors, CSV", `${path}/factors`, { ...at, format: "csv" }], ["SNN toolbox", `${path}/factors`, { ...at, format: "toolbox" }], ["t-digests", `${path}/factors`, { format: "tdigest" }],
        ...(run.has_network ? [["Normalised network", `${path}/network`, {}], ["Certificate", `${path}/certificate`, {}]] : [])])];
}

async function show_layer(id, point, channel) {
  const path = run_path(id), of = { point, channel };
  const [points, bars, answer] = await Promise.all([ask(`${path}/points`), ask(`${path}/distribution`, { ...of, log: true }), ask(`${path}/percentile`, { ...of, q: QS })]);
  const spec = points.points.find((p) => p.name === point), rows = answer.percentiles, run_name = path_of(id);
  const { picture, move } = histogramPlot(bars, rows);
  const wanted = Number(here.get("q") ?? bars.percentile.q), out = make("output", { for: "q", "aria-live": "polite" });
  const same = make("div"), near = QS.reduce((best, q, i) => (Math.abs(q - wanted) < Math.abs(QS[best] - wanted) ? i : best), 0);
  const slide = () => {
    const row = rows[Number(slider.value)], at = { ...of, q: row.q };
    move(Number(slider.value));
    slider.setAttribute("aria-valuetext", `percentile ${row.q}: ${text(row.value)}`);
    out.replaceChildren(`p${row.q} = ${text(row.value, 6)}, certainly within [${text(row.lo, 6)}, ${text(row.hi, 6)}]; as a factor ${row.value > 0 ? text(row.value, 6) : 1}`);
    history.replaceState(null, "", query({ run: id, ...at }));
    const opened = `open_run(${python_text(run_name)})`, zeros = answer.nonzero ? "" : ", nonzero=False";
    same.replaceChildren(reproduce(`actisketch percentiles ${shell(run_name)} -q ${row.q} --point ${shell(point)}${channel === null ? "" : " --per-channel"}`,
      channel === null ? `${opened}.percentile(${python_text(point)}, ${row.q}${zeros})` : `${opened}.sketch(${python_text(point)}, channel=${channel}).percentile(${row.q}, nonzero=${answer.nonzero ? "True" : "False"})`,
      [["PNG", `${path}/distribution`, { ...at, format: "png" }], ["SVG", `${path}/distribution`, { ...at, format: "svg" }], ["JSON", `${path}/distribution`, at], ["t-digest", `${path}/digest`, of]]));
  };
  const slider = make("input", { id: "q", type: "range", min: 0, max: QS.length - 1, step: 1, value: near, oninput: slide });
  const channels = make("section"), others = make("section"), up = [link({ run: id }, `Run ${run_name}`), channel === null ? null : link({ run: id, point }, `Layer ${point}`)];
  const whole = `${spec.layer_type} ${spec.activation}, shape ${spec.shape.join("x") || "1"}; ${count(spec.n_values)} values of ${count(answer.recorded.n_samples_done)} samples, ${share(spec.n_zeros, spec.n_values)} zeros, from ${text(spec.minimum)} to ${text(spec.maximum)}, mean ${text(spec.mean)}.`;
  const part = `${count(bars.n_values)} values of ${count(answer.recorded.n_samples_done)} samples, ${share(bars.n_zeros, bars.n_values)} zeros.`;
  show(channel === null ? point : `${point}, channel ${channel}`, make("p", { class: "links" }, ...up), ...recorded_marks(answer.recorded),
    make("p", { class: "note" }, `${channel === null ? whole : part} Percentiles are of ${answer.nonzero ? "the values that are not zero" : "all values"}.`),
    make("h2", {}, "Distribution"), make("div", { class: "wide", role: "region", tabindex: "0", "aria-label": "Distribution" }, picture),
    make("div", { class: "fields" }, make("label", { for: "q" }, "Percentile", slider)), make("p", {}, out), channels, others, same);
  slide();
  if (spec.n_channels) channels.append(...await channel_view(id, point, channel));
  const run = channel === null ? await ask(path) : {};
  if (run.certificate_passed) {
    const picture_of = (subject) => make("img", { src: `${path}/distribution${query({ point, of: subject, format: "svg" })}`, alt: `Histogram of the ${subject.replace("-", " ")} of ${point}`, onerror: (event) => event.target.remove() });
    others.append(make("h2", {}, "Before and after normalisation"), make("div", { class: "pictures" }, ...["activations", "normalised", "weights", "normalised-weights"].map(picture_of)));
  }
}

// All channels of a layer; each leads to its own distribution.
async function channel_view(id, point, channel) {
  const found = (await ask(`${run_path(id)}/channels`, { point })).channels, dead = found.filter((c) => c.is_dead).length;
  const form = make("form", { method: "get" }, make("input", { type: "hidden", name: "run", value: id }), make("input", { type: "hidden", name: "point", value: point }),
    make("label", {}, "Channel", make("input", { name: "channel", type: "number", min: 0, max: found.length - 1, required: true, value: channel ?? 0 })), make("button", { class: "act" }, "Show"));
  return [make("h2", {}, "Channels"), make("p", { class: "note" }, `${found.length} channels, ${dead} dead.`), form,
    legend(["bar", "maximum"], ["percentile", `p${found[0].q}`], ["dead", "dead: zero for every sample"]),
    make("div", { class: "wide", role: "region", tabindex: "0", "aria-label": "Channels" }, channelPlot(found, (chosen) => { location.search = query({ run: id, point, channel: chosen }); }))];
}

async function show_comparison() {
  const runs = (await ask("api/v1/runs", { limit: 500, sort: "name" })).runs.filter((r) => r.state !== "damaged");
  const chosen = { a: here.get("a"), b: here.get("b"), percentile: here.get("percentile"), second_percentile: here.get("second_percentile") };
  // Those that the list has no room for.
  for (const id of [chosen.a, chosen.b]) if (id && !runs.some((r) => r.id === id)) runs.push({ id, name: path_of(id) });
  const select = (name, label) => make("label", {}, label, make("select", { name }, ...runs.map((r) => make("option", { value: r.id, selected: r.id === chosen[name] }, r.name))));
  const q = (name, label) => make("label", {}, label, make("input", { name, type: "number", min: 0, max: 100, step: "any", value: chosen[name] ?? "" }));
  const form = make("form", { method: "get" }, make("input", { type: "hidden", name: "view", value: "compare" }), select("a", "First run"), q("percentile", "Its percentile"), select("b", "Second run"), q("second_percentile", "Its percentile"), make("button", { class: "act" }, "Compare"));
  show("Compare", form, make("p", { class: "note" }, "Two runs (checkpoints, data sets), or one run at two percentiles."));
  if (!chosen.a || !chosen.b) return;
  const found = await ask("api/v1/compare", chosen);
  const factor = (f) => (Array.isArray(f.factor) ? `${f.factor.length} channels` : `${text(f.factor)} [${text(f.lo)}, ${text(f.hi)}]`);
  const alone = [...found.only_in_first.map((n) => `${n} (first only)`), ...found.only_in_second.map((n) => `${n} (second only)`)];
  main.append(...recorded_marks(found.first_recorded), ...recorded_marks(found.second_recorded), table([
    { title: "Layer", cell: (r) => link({ run: chosen.a, point: r.point }, r.point === r.other ? r.point : `${r.point} = ${r.other}`), by: (r) => r.point },
    { title: "First factor", number: true, cell: (r) => factor(r.first) },
    { title: "Second factor", number: true, cell: (r) => factor(r.second) },
    { title: "Ratio", number: true, cell: (r) => text(r.ratio), by: (r) => r.ratio },
    { title: "Distance [lo, hi]", number: true, cell: (r) => `${text(r.distance, 3)} [${text(r.distance_lo, 3)}, ${text(r.distance_hi, 3)}]`, by: (r) => r.distance },
    ...["every", "nonzero"].map((of) => ({ title: of === "every" ? "W1, all" : "W1, nonzero", number: true, cell: (r) => `${text(r[of].wasserstein.value, 3)} [${text(r[of].wasserstein.lo, 3)}, ${text(r[of].wasserstein.hi, 3)}]`, by: (r) => r[of].wasserstein.value })),
    { title: "Zeros", number: true, cell: (r) => r.zeros.map((share) => (share === null ? "-" : `${text(100 * share, 3)} %`)).join(" to ") },
  ], found.points, "Layers of both"), make("p", { class: "note" }, `The distance is that of Kolmogorov and Smirnov: the largest difference of the shares of values below any place${found.is_nonzero ? ", zeros left out" : ""}. W1, the 1-Wasserstein distance, is how far values have to be moved on average. ${alone.length ? `Not compared: ${alone.join(", ")}.` : ""}`),
    // The command line compares the factors of the runs' own percentiles.
    reproduce(chosen.a === chosen.b || chosen.percentile || chosen.second_percentile ? null : `actisketch compare ${shell(path_of(chosen.a))} ${shell(path_of(chosen.b))}`,
      `compare(${["a", "b"].map((name) => python_text(path_of(chosen[name]))).join(", ")}${["percentile", "second_percentile"].map((name) => (chosen[name] ? `, ${name}=${Number(chosen[name])}` : "")).join("")})`,
      [["JSON", "api/v1/compare", chosen]]));
}

function start(view, keeps_page = false) {
  return Promise.resolve().then(view).catch((error) => (keeps_page ? main.prepend(told("bad", error.message)) : show("This cannot be shown", told("bad", error.message))));
}

const VIEWS = { compare: show_comparison, jobs: show_jobs, job: () => show_job(here.get("job")), "new-job": show_new_job };
start(show_jobs_link, true);
if (Object.hasOwn(VIEWS, here.get("view"))) start(VIEWS[here.get("view")]);
else if (here.get("run") && here.has("point")) start(() => show_layer(here.get("run"), here.get("point"), here.get("channel")));
else if (here.get("run")) start(() => show_run(here.get("run")));
else start(show_runs);
