// How a panel looks: every view has a `stage` for the page, draws itself and knows its positions.

const SHOWN_BARS = 20;

function makeView(panel) {
  return { image: imageView, sequence: sequenceView, table: tableView, text: textView }[panel.part.kind](panel);
}

function stageOf(panel, kind, ...children) {
  const role = kind === "image" || kind === "sequence" ? "img" : "group"; // words and bars can be read out
  const label = `Relevance by ${facts.methods[panel.method].name} for ${facts.samples[panel.sample].name}. Arrow keys read it.`;
  return element("div", { class: `stage ${kind}`, tabindex: "0", role, "aria-label": label }, ...children);
}

// A canvas for an image, in its own proportions, but at most 4 : 1 and at least 1 : 4, as kxai.plots draws it.
function imageCanvas([height, width], attributes = {}) {
  const canvas = element("canvas", { width, height, class: width < 128 ? "pixels" : "", ...attributes });
  canvas.style.aspectRatio = Math.min(4, Math.max(1 / 4, width / height));
  return canvas;
}

function imageView(panel) {
  const canvas = imageCanvas(panel.pictureMeta ? panel.pictureMeta.shape : panel.meta.shape);
  const mark = element("span", { class: "mark", hidden: true });
  const stage = stageOf(panel, "image", canvas, mark);
  return { ...gridView(panel, stage, mark), draw: (bound) => paint(panel, canvas, bound) };
}

function sequenceView(panel) {
  const canvas = element("canvas", { width: 600, height: 110 });
  const mark = element("span", { class: "mark", hidden: true });
  const stage = stageOf(panel, "sequence", canvas, mark);
  return { ...gridView(panel, stage, mark), draw: (bound) => paintSequence(panel, canvas, bound) };
}

// Positions of a picture: found by where the pointer is, marked by a box.
function gridView(panel, stage, mark) {
  const [rows, columns] = panel.meta.shape;
  const clamp = (value, count) => Math.min(count - 1, Math.max(0, Math.floor(value * count)));
  return {
    stage,
    columns,
    count: rows * columns,
    at(event) {
      const box = stage.getBoundingClientRect();
      const row = clamp((event.clientY - box.top) / box.height, rows);
      return row * columns + clamp((event.clientX - box.left) / box.width, columns);
    },
    // Where in the panel a position lies, in shares; and the position of such a place.
    place: (position) => [((position % columns) + 0.5) / columns, (Math.floor(position / columns) + 0.5) / rows],
    near: ([x, y]) => clamp(y, rows) * columns + clamp(x, columns),
    mark(position) {
      mark.hidden = position === null;
      if (position === null) return;
      mark.style.left = `${(100 * (position % columns)) / columns}%`;
      mark.style.top = `${(100 * Math.floor(position / columns)) / rows}%`;
      mark.style.width = `${100 / columns}%`;
      mark.style.height = `${100 / rows}%`;
    },
    box: () => (mark.hidden ? stage : mark).getBoundingClientRect(),
  };
}

// Positions that are elements of their own: words, bars.
function listView(stage, count, elementOf) {
  let marked = null;
  return {
    stage,
    count,
    columns: 1,
    at(event) {
      const found = event.target.closest("[data-at]");
      return found ? Number(found.dataset.at) : null;
    },
    place: (position) => position,
    near: (position) => (typeof position === "number" && position < count ? position : null),
    mark(position) {
      marked?.classList.remove("marked");
      marked = position === null ? null : elementOf(position);
      marked?.classList.add("marked");
    },
    box: () => (marked ?? stage).getBoundingClientRect(),
  };
}

function textView(panel) {
  const words = panel.part.words[panel.sample];
  const map = panel.meta.shape[1];
  const spans = words.slice(0, map).map(([text], i) => element("span", { class: "word", "data-at": i }, text));
  const rest = element("small", { dir: "ltr" }); // a minus stands before its number
  const stage = stageOf(panel, "text");
  stage.dir = "auto"; // from right to left, if its words are
  spans.forEach((span, i) => stage.append(words[i][1] && i ? " " : "", span));
  stage.append(" ", rest);
  const draw = (bound) => {
    const values = mapOf(panel);
    spans.forEach((span, i) => {
      const share = values[i] / (bound || 1);
      span.style.backgroundColor = colorText(share);
      span.style.color = share > 0.69 || share < -0.72 ? "#fff" : "#000"; // contrast of 4.5 on every colour
    });
    const after = values.slice(spans.length).reduce((sum, value) => sum + value, 0);
    rest.textContent = after ? `${brief(after)} after the last token` : "";
  };
  return { ...listView(stage, spans.length, (i) => spans[i]), draw };
}

function tableView(panel) {
  const stage = stageOf(panel, "table");
  const rows = new Map();
  const draw = (bound) => {
    const values = mapOf(panel);
    const chosen = features(panel);
    rows.clear();
    chosen.forEach((i) => rows.set(i, bar(panel.part.features[i] ?? String(i), values[i], bound, i)));
    stage.replaceChildren(...rows.values());
    if (chosen.length === values.length) return;
    const others = values.reduce((sum, value, i) => (rows.has(i) ? sum : sum + value), 0);
    stage.append(element("small", {}, `the other ${values.length - chosen.length} add up to ${brief(others)}`));
  };
  return { ...listView(stage, panel.meta.shape[1], (i) => rows.get(i)), draw };
}

// The same features for all methods of a sample: those with the largest share of what a method says, in their order.
function features(panel) {
  const count = panel.meta.shape[1];
  if (count <= SHOWN_BARS) return [...Array(count).keys()];
  const weights = new Float64Array(count);
  for (const one of panels) {
    if (one.sample !== panel.sample || one.index !== panel.index || one.meta.shape[1] !== count) continue;
    const largest = sortedOf(one)[count - 1] || 1;
    mapOf(one).forEach((value, i) => (weights[i] += Math.abs(value) / largest));
  }
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
  return order.slice(0, SHOWN_BARS).sort((a, b) => a - b);
}

function bar(name, value, bound, position) {
  const share = Math.min(1, Math.abs(value) / (bound || 1));
  const fill = element("span", { class: value < 0 ? "fill negative" : "fill" });
  fill.style.width = `${50 * share}%`;
  fill.style.backgroundColor = colorText(Math.sign(value) * (0.45 + 0.35 * share));
  return element(
    "div",
    { class: "bar", "data-at": position },
    element("span", { class: "feature" }, name),
    element("span", { class: "track" }, fill),
    element("span", { class: "number" }, brief(value))
  );
}
