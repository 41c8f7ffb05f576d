// Make elements and draw figures. Text is always set as text: a layer may have any name.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function text(value, digits = 5) {
  if (value === null || value === undefined) return "-";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) return value.toExponential(digits - 2);
  return String(Number(value.toPrecision(digits)));
}
const share = (part, whole) => (whole ? `${text((100 * part) / whole, 3)} %` : "-");
const when = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");
const count = (n) => (n === null ? "-" : n.toLocaleString("en"));

function bytes(n) {
  if (n === null) return "-";
  const power = n < 1000 ? 0 : Math.min(4, Math.floor(Math.log10(n) / 3));
  return `${text(n / 1000 ** power, 3)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}

function duration(seconds) {
  if (seconds === null) return "unknown";
  const s = Math.round(seconds);
  return s < 90 ? `${s} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${text(s / 3600, 2)} h`;
}

// A place on an axis that is logarithmic where all values are positive.
function axis(values, from, to) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  const positive = known.filter((value) => value > 0);
  const high = Math.max(...known, 1e-30);
  const isLog = known.every((value) => value >= 0) && positive.length > 0;
  const low = isLog ? Math.max(Math.min(...positive), high * 1e-8) : Math.min(...known, 0);
  const at = (value) => (isLog ? Math.log(Math.max(value, low) / low) / (Math.log(high / low) || 1) : (value - low) / (high - low || 1));
  return { place: (value) => from + (to - from) * at(value), low, high, isLog };
}

// Round numbers along an axis, of a logarithmic one 1, 2 and 5 of each decade where there are few.
function ticks(scale) {
  const { low, high, isLog } = scale;
  if (!isLog) {
    const rough = (high - low) / 4 || 1, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((each) => each * power >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9), n = Math.floor(high / step + 1e-9) - first + 1;
    return Array.from({ length: n }, (_, i) => (first + i) * step);
  }
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), step = Math.max(1, Math.ceil((last - first) / 6));
  const parts = last - first > 3 ? [1] : [1, 2, 5];
  const found = Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => parts.map((part) => part * 10 ** (first + i * step))).flat();
  const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  return inside.length > 1 ? inside : [low, high];
}

// Lines and numbers of an axis from bottom to top.
const rule = (y, left, right) => ticks(y).flatMap((value) => [
  draw("line", { class: "grid", x1: left, x2: right, y1: y.place(value), y2: y.place(value) }),
  draw("text", { x: left - 6, y: y.place(value) + 4, "text-anchor": "end" }, text(value, 3)),
]);

// Layers over depth: maximum, percentile with its interval, factor, share of zeros. `factors` by name of the point.
function depthPlot(points, factors, choose) {
  const step = Math.max(4, Math.min(60, 1100 / points.length)), left = 64, top = 10, height = 220, zeros = 46;
  const width = left + step * points.length + 90, foot = points.length > 60 ? 24 : 110;
  const number = (name) => (typeof factors.get(name)?.factor === "number" ? factors.get(name).factor : null);
  const values = points.flatMap((p) => [p.maximum, p.percentile.lo, p.percentile.hi, number(p.name)]);
  // A decade at least: layers that differ by a percent are alike.
  const known = values.filter((value) => value > 0), middle = Math.sqrt(Math.min(...known) * Math.max(...known));
  const y = axis([...known, middle / 3.5, middle * 3.5], top + height, top);
  // Narrow enough to leave the factor behind it to be seen.
  const x = (i) => left + step * (i + 0.5), side = Math.min(4, step / 3);
  const all = rule(y, left, width);
  const base = top + height + 12 + zeros;
  all.push(draw("text", { class: "soft", x: left - 6, y: base - zeros / 2, "text-anchor": "end" }, "zeros"));
  points.forEach((p, i) => {
    const { value, lo, hi } = p.percentile, factor = number(p.name);
    const parts = [draw("title", {}, `${p.name}: max ${text(p.maximum)}, p${p.percentile.q} ${text(value)} [${text(lo)}, ${text(hi)}], factor ${text(factor)}, zeros ${share(p.n_zeros, p.n_values)}`)];
    parts.push(draw("rect", { x: x(i) - step / 2, y: top, width: step, height: base - top, fill: "transparent" }));
    if (p.maximum > 0) parts.push(draw("circle", { class: "max", cx: x(i), cy: y.place(p.maximum), r: Math.max(1.6, Math.min(4, step / 3)) }));
    if (factor !== null) parts.push(draw("line", { class: "factor", "stroke-width": 3, x1: x(i) - step * 0.4, x2: x(i) + step * 0.4, y1: y.place(factor), y2: y.place(factor) }));
    if (value > 0) {
      parts.push(draw("line", { class: "percentile", "stroke-width": Math.min(2, step / 4), x1: x(i), x2: x(i), y1: y.place(lo) + 1, y2: y.place(hi) - 1 }));
      parts.push(draw("rect", { class: "percentile", x: x(i) - side / 2, y: y.place(value) - side / 2, width: side, height: side }));
    }
    const part = p.n_values ? (zeros * p.n_zeros) / p.n_values : 0;
    parts.push(draw("rect", { class: "zeros", x: x(i) - step * 0.35, width: step * 0.7, y: base - part, height: part }));
    if (points.length <= 60) parts.push(draw("text", { transform: `translate(${x(i) + 3} ${base + 8}) rotate(55)` }, p.name.length > 22 ? `${p.name.slice(0, 21)}…` : p.name));
    else if (i % 10 === 0) parts.push(draw("text", { x: x(i), y: base + 14, "text-anchor": "middle" }, String(i)));
    all.push(draw("g", { onclick: () => choose(p.name) }, ...parts));
  });
  const label = `${points.length} layers over depth: maximum, percentile, factor and share of zeros; the table below has the numbers`;
  return draw("svg", { width, height: base + foot, role: "img", "aria-label": label }, ...all);
}

// A histogram with a percentile that can be moved: returns the picture and what moves the line.
function histogramPlot(bars, rows) {
  const left = 56, top = 8, width = 1000, height = 230, { edges, counts } = bars;
  const isLog = bars.scale === "log";
  const x = isLog ? axis(edges, left, left + width) : axis([...edges, Math.min(0, edges[0])], left, left + width);
  const first = edges[0], last = edges[edges.length - 1];
  // Between two edges of a bar of a symmetric log axis, places are proportional.
  const bar = (value) => Math.max(0, edges.findIndex((edge) => edge >= value) - 1);
  const among = (value) => bar(value) + (value - edges[bar(value)]) / (edges[bar(value) + 1] - edges[bar(value)] || 1);
  const linear = (value) => left + (width * (value - first)) / (last - first || 1);
  const place = isLog ? x.place : bars.scale === "symlog" ? (value) => left + (width * among(value)) / counts.length : linear;
  const y = axis(counts.filter((n) => n > 0), top + height, top);
  const all = rule(y, left, left + width).concat(counts.map((n, i) => (n > 0 ? draw("rect", {
    class: "bar", x: place(edges[i]), width: Math.max(0.5, place(edges[i + 1]) - place(edges[i]) - 0.5),
    y: y.place(n) - 1, height: top + height - y.place(n) + 1,
  }, draw("title", {}, `${text(edges[i])} to ${text(edges[i + 1])}: ${count(Math.round(n))} values`)) : null)).filter(Boolean));
  const marks = isLog ? ticks(x) : bars.scale === "symlog" ? [first, 0, last] : [first, (first + last) / 2, last];
  for (const value of marks) all.push(draw("text", { x: place(value), y: top + height + 16, "text-anchor": "middle" }, text(value, 3)));
  const band = draw("rect", { class: "band", y: top, height });
  const line = draw("line", { class: "percentile", "stroke-width": 2, y1: top, y2: top + height });
  all.push(band, line, draw("text", { class: "soft", x: left + width, y: top + height + 32, "text-anchor": "end" }, bars.scale === "linear" ? "activation" : `activation (${bars.scale} axis)`));
  const picture = draw("svg", {
    width: left + width + 24, height: top + height + 40, role: "img",
    "aria-label": `Histogram of ${count(bars.n_values)} values, ${share(bars.n_zeros, bars.n_values)} of them zero`,
  }, ...all);
  const move = (i) => {
    const row = rows[i];
    const known = row.value !== null;
    for (const part of [line, band]) part.setAttribute("visibility", known ? "visible" : "hidden");
    if (!known) return;
    line.setAttribute("x1", place(row.value));
    line.setAttribute("x2", place(row.value));
    band.setAttribute("x", place(row.lo));
    band.setAttribute("width", Math.max(1, place(row.hi) - place(row.lo)));
  };
  return { picture, move };
}

// One bar for each channel, from zero; dead ones are marked. A press on one chooses it.
function channelPlot(rows, choose) {
  const step = Math.max(2, Math.min(24, 1000 / rows.length)), height = 120, left = 56, top = 8, width = left + step * rows.length;
  const most = Math.max(...rows.map((row) => row.maximum ?? 0), 1e-30);
  const y = { low: 0, high: most, isLog: false, place: (value) => top + height - (height * Math.max(value, 0)) / most };
  const all = rule(y, left, width).concat(rows.flatMap((row, i) => {
    const x = left + step * i, title = draw("title", {}, `channel ${row.channel}: p${row.q} ${text(row.value)} [${text(row.lo)}, ${text(row.hi)}], max ${text(row.maximum)}`);
    const at = { x, width: step * 0.8 }, parts = [title, draw("rect", { x, width: step, y: top, height, fill: "transparent" })];
    if (row.is_dead) parts.push(draw("rect", { class: "dead", ...at, y: top + height - 5, height: 5 }));
    else parts.push(draw("rect", { class: "bar", ...at, y: y.place(row.maximum), height: top + height - y.place(row.maximum) }));
    if (row.value > 0) parts.push(draw("rect", { class: "percentile", ...at, y: y.place(row.value) - 1, height: 2 }));
    return [draw("g", { onclick: () => choose(row.channel) }, ...parts)];
  }));
  const every = Math.ceil(40 / step / 10) * 10 || 10;
  for (let i = 0; i < rows.length; i += step < 20 ? every : 1) all.push(draw("text", { class: "soft", x: left + step * (i + 0.4), y: top + height + 14, "text-anchor": "middle" }, String(rows[i].channel)));
  const dead = rows.filter((row) => row.is_dead).length;
  const label = `${rows.length} channels, ${dead} of them dead: the maximum of each, and its percentile`;
  return draw("svg", { width: width + 20, height: top + height + 20, role: "img", "aria-label": label }, ...all);
}

// What the colours stand for: [class of the colour, words].
const legend = (...parts) => make("ul", { class: "legend" }, ...parts.map(([of, words]) => make("li", { class: `of-${of}` }, words)));
