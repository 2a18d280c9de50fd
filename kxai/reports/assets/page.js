// The page: heading, tools, one row per sample, and what happens when a choice changes.

const panels = [];
const main = document.getElementById("samples");
const visible = new Set();
const figures = new Map(); // figure -> its panels
let pending = false;

const once = (make) => {
  let made;
  return () => (made ??= make());
};

function makePanels(method, sample) {
  return facts.parts.map((part, index) => {
    const pictureMeta = facts.pictures[sample][index];
    const panel = { method, sample, index, part, pictureMeta, meta: facts.relevance[method][sample][index] };
    panel.picture = pictureMeta ? pictures(sample, index) : () => null;
    panel.values = inputs(sample, index);
    panel.view = makeView(panel);
    panels.push(panel);
    listen(panel);
    return panel;
  });
}

// Inputs and pictures are decoded once for all methods.
const memory = new Map();

function remembered(key, make) {
  if (!memory.has(key)) memory.set(key, once(make));
  return memory.get(key);
}

const pictures = (sample, index) => remembered(`p${sample},${index}`, () => arrayOf(facts.pictures[sample][index]));
const inputs = (sample, index) => remembered(`v${sample},${index}`, () => arrayOf(facts.values[sample][index]));

function schedule(all = false) {
  if (all) for (const panel of panels) panel.stale = true;
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    for (const figure of visible) draw(figure);
  });
}

function draw(figure) {
  for (const panel of figures.get(figure)) {
    if (!panel.stale) continue;
    const bound = boundOf(panel);
    panel.view.draw(bound);
    panel.scale.textContent = bound ? `±${brief(bound)}` : "±0 (no relevance)";
    panel.stale = false;
  }
}

const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) visible.add(target);
      else visible.delete(target);
    }
    schedule();
  },
  { rootMargin: "300px" }
);

function refusedFigure(method, number) {
  const link = element("a", { href: `#method-${number}` }, "why");
  link.addEventListener("click", () => (document.getElementById(`method-${number}`).open = true));
  const said = element("p", { class: "refusal" }, method.error.split("\n")[0], " ", link);
  return element("figure", { class: "cell refused" }, element("figcaption", {}, element("b", {}, ...breakable(method.name))), said);
}

function makeFigure(method, number, sample) {
  if (method.error) return refusedFigure(method, number);
  const numbers = method.samples[sample];
  const figure = element("figure", { class: "cell" }, element("figcaption", {}, element("b", { title: method.about }, ...breakable(method.name))));
  const made = makePanels(number, sample);
  const said = element("p", { class: "numbers" });
  const fact = (label, value, title) => said.append(element("span", { title }, `${label} `, element("b", {}, value)), " ");
  fact("score", brief(numbers.score, 4), String(numbers.score));
  fact("residual", brief(numbers.residual), String(numbers.residual));
  if (numbers.base) fact("base", brief(numbers.base, 4), String(numbers.base));
  for (const panel of made) {
    panel.stale = true;
    panel.scale = element("b", {});
    const scale = element("span", {}, "scale ", panel.scale);
    if (made.length > 1) figure.append(element("p", { class: "input numbers" }, element("span", {}, panel.part.name), " ", scale));
    else said.append(scale);
    figure.append(panel.view.stage);
  }
  figure.append(said);
  figures.set(figure, made);
  observer.observe(figure);
  return figure;
}

function predictionBars(output) {
  if (!output.top.length) return element("p", {}, `${output.name || "output"}: ${output.shape.join(" × ")} values`);
  const list = element("ol", { class: "predictions", "aria-label": output.name || "predictions" });
  for (const [name, value] of output.top) {
    const meter = element("span", { class: value < 0 ? "meter negative" : "meter" });
    meter.style.setProperty("--share", Math.abs(value) / (output.full || 1));
    const shown = output.percent ? `${(100 * value).toFixed(1)} %` : brief(value, 4);
    const text = name || "output";
    const label = element("span", { class: "label" }, text);
    list.append(element("li", { title: `${text}: ${value}` }, meter, label, element("b", {}, shown)));
  }
  return element("div", {}, ...(output.name ? [element("p", { class: "input" }, output.name)] : []), list);
}

function makeCard(sample, number) {
  const pictured = facts.pictures[number].some((meta) => meta);
  const card = element("div", { class: pictured ? "card" : "card plain" }, element("h2", {}, sample.name));
  facts.parts.forEach((part, index) => {
    const meta = facts.pictures[number][index];
    if (!meta) return;
    const label = `${sample.name}, as the model sees it`;
    const canvas = imageCanvas(meta.shape, { role: "img", "aria-label": label });
    paintPicture(pictures(number, index)(), canvas);
    card.append(canvas);
  });
  card.append(...sample.outputs.map(predictionBars));
  const targets = new Set(facts.methods.filter((one) => !one.error).map((one) => one.samples[number].target));
  card.append(element("p", { class: "numbers" }, "explained: ", element("b", {}, [...targets].join("; "))));
  if (sample.agreement !== null) {
    card.append(element("p", { class: "numbers" }, "agreement ", element("b", {}, brief(sample.agreement, 2))));
  }
  return card;
}

const rows = facts.samples.map((sample, number) => {
  const pictures = facts.parts.every((part) => part.kind === "image"); // which may be small; bars and words may not
  const cells = element("div", { class: pictures ? "cells pictures" : "cells" }, ...facts.methods.map((method, i) => makeFigure(method, i, number)));
  return element("section", { class: "sample", "data-sample": number, "aria-label": sample.name }, makeCard(sample, number), cells);
});

// What samples are sorted by; null comes last in either direction.
const numbersOf = (method, sample) => facts.methods[method].samples[sample];
const largestResidual = (sample) =>
  Math.max(...facts.methods.filter((one) => !one.error).map((one) => Math.abs(one.samples[sample].residual)));

function sortKey(choice, sample) {
  const { name, outputs, agreement } = facts.samples[sample];
  const [what, method] = choice.split(":");
  if (what === "name") return name;
  if (what === "predicted") return outputs[0].predicted;
  if (what === "value") return outputs[0].top[0]?.[1] ?? null;
  if (what === "agreement") return agreement;
  if (what === "score") return numbersOf(Number(method), sample).score;
  if (what === "residual") return method ? Math.abs(numbersOf(Number(method), sample).residual) : largestResidual(sample);
  return sample;
}

function compared(a, b) {
  if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true });
  return a - b;
}

function sortRows() {
  const keys = rows.map((_, sample) => sortKey(state.sort, sample));
  const order = [...rows.keys()].sort((a, b) => {
    if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null) || a - b;
    return (state.descending ? -1 : 1) * compared(keys[a], keys[b]) || a - b;
  });
  main.append(...order.map((sample) => rows[sample]));
}

function sortOptions() {
  const explained = [...facts.methods.keys()].filter((i) => !facts.methods[i].error);
  const option = (value, text) => element("option", { value }, text);
  const group = (label, what) =>
    element("optgroup", { label }, ...explained.map((i) => option(`${what}:${i}`, `${label}: ${facts.methods[i].name}`)));
  const plain = [option("given", "order given"), option("name", "name")];
  if (facts.samples.some(({ outputs }) => outputs[0].predicted !== null)) plain.push(option("predicted", "predicted class"));
  if (facts.samples.some(({ outputs }) => outputs[0].top.length)) plain.push(option("value", "largest output"));
  if (facts.samples.some(({ agreement }) => agreement !== null)) plain.push(option("agreement", "agreement of methods"));
  plain.push(option("residual", "|residual|, largest"));
  return [...plain, group("score", "score"), group("|residual|", "residual")];
}

function chooser(name, label, options, change) {
  const select = element("select", { id: name, name }, ...options);
  select.addEventListener("change", () => change(select.value));
  return element("label", {}, element("span", {}, label), select);
}

function slider(name, label, range, shown, change) {
  const value = element("output", { for: name }, shown(range.value));
  const input = element("input", { type: "range", id: name, name, ...range });
  input.addEventListener("input", () => {
    value.textContent = shown(Number(input.value));
    input.setAttribute("aria-valuetext", value.textContent);
    change(Number(input.value));
  });
  return element("label", { for: name }, element("span", {}, label, " ", value), input); // an output is labelable, too
}

function changed(name, value) {
  state[name] = value;
  hide();
  schedule(true);
}

function buildTools() {
  const tools = document.getElementById("tools");
  const kinds = new Set(facts.parts.map((part) => part.kind));
  const direction = element("button", { type: "button", id: "direction", "aria-pressed": "false", title: "turn the order round" }, "↑");
  direction.addEventListener("click", () => {
    state.descending = !state.descending;
    direction.textContent = state.descending ? "↓" : "↑";
    direction.setAttribute("aria-pressed", String(state.descending));
    sortRows();
  });
  const sort = chooser("sort", "Sort by", sortOptions(), (value) => {
    state.sort = value;
    sortRows();
  });
  const sorting = element("div", { class: "pair" }, sort, direction);
  const option = ([value, text]) => element("option", { value }, text);
  tools.append(sorting);
  const channels = Math.max(...panels.map((panel) => (panel.meta.maps ? 1 : panel.meta.shape[2])));
  const mapped = panels.some((panel) => panel.meta.maps);
  if (channels > 1 || mapped) {
    const each = channels > 1 && channels <= 64 ? [...Array(channels).keys()].map((k) => [k, `channel ${k}`]) : [];
    const choices = [["sum", "sum"], ["abs_max", "largest magnitude"], ...each];
    tools.append(chooser("channel", "Channels", choices.map(option), (value) => changed("channel", /^\d/.test(value) ? Number(value) : value)));
  }
  const scales = [["panel", "of each heatmap"], ["method", "of each method"], ["report", "of the whole report"]];
  tools.append(chooser("scale", "Colour scale", scales.map(option), (value) => changed("scale", value)));
  if (kinds.size > 1 || !kinds.has("table")) {
    const range = { min: 80, max: 100, step: 0.1, value: state.clip };
    tools.append(slider("clip", "Clip percentile", range, (value) => (value === 100 ? "maximum" : String(value)), (value) => changed("clip", value)));
  }
  if (facts.parts.some((part, index) => facts.pictures[0][index])) {
    const over = element("input", { type: "checkbox", id: "over", name: "over", checked: true });
    over.addEventListener("change", () => changed("over", over.checked));
    const range = { min: 0, max: 1, step: 0.01, value: state.opacity };
    tools.append(slider("opacity", "Opacity", range, (value) => `${Math.round(100 * value)} %`, (value) => changed("opacity", value)));
    tools.append(element("label", { class: "check" }, over, element("span", {}, "over the image")));
  }
  const usual = usualSize(kinds);
  document.documentElement.style.setProperty("--cell", `${usual}px`);
  const size = { min: 120, max: 480, step: 10, value: usual };
  tools.append(slider("size", "Size", size, (value) => `${value} px`, (value) => document.documentElement.style.setProperty("--cell", `${value}px`)));
  tools.append(legend());
  tools.addEventListener("submit", (event) => event.preventDefault());
}

// Few methods may be large; words and bars need more room than pictures.
function usualSize(kinds) {
  const [least, most] = kinds.size === 1 && kinds.has("image") ? [160, 250] : [280, 400];
  const room = (document.documentElement.clientWidth - 320) / facts.methods.length - 16;
  return 10 * Math.floor(Math.min(most, Math.max(least, room)) / 10);
}

function legend() {
  const canvas = element("canvas", { width: steps + 1, height: 1, role: "img", "aria-label": "blue: against, white: zero, red: for" });
  const context = canvas.getContext("2d");
  for (let i = 0; i <= steps; i++) {
    context.fillStyle = colorText((2 * i) / steps - 1);
    context.fillRect(i, 0, 1, 1);
  }
  const ends = element("span", { class: "ends" }, element("span", {}, "against"), element("span", {}, "0"), element("span", {}, "for"));
  return element("div", { class: "legend" }, canvas, ends);
}

function buildHead() {
  const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
  const refused = facts.methods.filter((method) => method.error).length;
  const said = [`model ${facts.model}`, count(facts.samples.length, "sample"), count(facts.methods.length, "method")];
  if (refused) said.push(`${refused} of them refused`);
  if (facts.precision.name !== "single") said.push("numbers in half precision");
  document.getElementById("head").append(element("h1", {}, facts.title), element("p", {}, said.join(" · ")));
}

buildHead();
buildTools();
sortRows();
buildDetails();
addEventListener("beforeprint", () => figures.forEach((_, figure) => draw(figure)));
addEventListener("scroll", () => current && document.activeElement !== current.panel.view.stage && hide(), { passive: true });
