// Below the grid: what each method is and did, and how to read the page.

function section(title, open, ...children) {
  return element("details", { open }, element("summary", {}, title), ...children);
}

function table(head, rows) {
  const kind = (cell, tag) => (tag === "th" ? { scope: "col" } : { class: /^-?[\d.]+(e[-+]?\d+)?$/.test(cell) ? "count" : null });
  const line = (cells, tag) => element("tr", {}, ...cells.map((cell) => element(tag, kind(cell, tag), cell)));
  const body = element("tbody", {}, ...rows.map((row) => line(row, "td")));
  const whole = element("table", {}, element("thead", {}, line(head, "th")), body);
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": head.join(", ") }, whole);
}

const textOf = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function configuration(config) {
  const settings = Object.entries(config.hyperparameters ?? {}).map(([key, value]) => [key, textOf(value)]);
  const others = Object.entries(config).filter(([key]) => key !== "hyperparameters");
  return element(
    "div",
    {},
    element("h3", {}, "Hyperparameters"),
    settings.length ? table(["name", "value"], settings) : element("p", {}, "none"),
    section("Configuration", false, element("pre", {}, JSON.stringify(Object.fromEntries(others), null, 2)))
  );
}

function methodDetails(method, number) {
  const parts = [];
  if (method.about) parts.push(element("p", {}, method.about));
  if (method.error) parts.push(element("pre", { class: "error" }, method.error));
  if (method.notes.length) parts.push(element("ul", { class: "notes" }, ...method.notes.map((note) => element("li", {}, note))));
  if (method.samples.length) {
    const rows = method.samples.map((one, i) => [facts.samples[i].name, one.target, ...[one.score, one.base, one.residual].map((x) => brief(x, 6))]);
    parts.push(section("Scores and residuals", false, table(["sample", "explained", "score", "base", "residual"], rows)));
    parts.push(configuration(method.config));
  }
  if (method.plan.length) parts.push(section(`Plan: ${method.plan.length} nodes`, false, table(["node", "kind", "rule"], method.plan)));
  else if (method.withoutPlan && !method.error) parts.push(element("p", {}, method.withoutPlan));
  const name = method.error ? `${method.name} – refused` : method.name;
  const box = section(name, Boolean(method.error), ...parts);
  box.id = `method-${number}`;
  return box;
}

function aboutPage() {
  const lines = [
    "Red: positive relevance, it speaks for what is explained. Blue: negative, it speaks against it. White: zero.",
    "The bound of the colours is a percentile of the magnitudes; what exceeds it has the darkest colour. Bars are not cut.",
    ...(facts.parts.some((part) => part.kind === "sequence")
      ? ["Along a sequence the colours are relevance, of steps that share a dot the strongest; lines are the input's values, marks its one-hot channels, the first on top."]
      : []),
    "Over an image, a pixel is covered by opacity times the root of its share of the bound.",
    "Score: the value of what is explained; of a class that before its softmax or sigmoid, where a method leaves these out. Residual: score minus base minus the sum of all relevance; 0 where a method conserves.",
    "Agreement: the mean rank correlation (Spearman) of the methods' heatmaps, summed over channels, pair by pair.",
    `Numbers are kept ${facts.precision.stated}.`,
    ...facts.parts.filter((part) => part.pictured).map((part) => `${part.name}: ${part.pictured}.`),
    `Versions: ${Object.entries(facts.versions).map(([name, version]) => `${name} ${version}`).join(", ")}.`,
  ];
  return section("How to read this page", false, element("ul", {}, ...lines.map((line) => element("li", {}, line))));
}

function buildDetails() {
  document.getElementById("details").append(
    element("h2", {}, "Methods"),
    ...facts.methods.map(methodDetails),
    element("h2", {}, "About"),
    aboutPage()
  );
}
