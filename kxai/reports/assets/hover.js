// What is known of a position, under the pointer or at the keyboard's mark.

const tip = document.getElementById("tip");
let current = null; // {panel, position}

const channelName = (channel) =>
  channel === "sum" ? "sum over channels" : channel === "abs_max" ? "largest magnitude" : `channel ${channel}`;

function positionName(panel, position) {
  const { part, meta, sample } = panel;
  const [rows, columns] = meta.shape;
  if (part.kind === "table") return part.features[position] ?? `feature ${position}`;
  if (part.kind === "text") return `token ${position}: ${part.words[sample][position][0]}`;
  if (part.kind === "sequence") return `step ${position}`;
  const slices = part.slices.reduce((product, size) => product * size, 1);
  const row = Math.floor(position / columns);
  const slice = slices > 1 ? `slice ${Math.floor(row / (rows / slices))}, ` : "";
  return `${slice}row ${row % (rows / slices)}, column ${position % columns}`;
}

// Lines of (label, value) about a position.
function readout(panel, position) {
  const { data, channels, exact } = relevanceOf(panel);
  const channel = channelOf(panel);
  const own = [...data.slice(position * channels, (position + 1) * channels)];
  const several = channels > 1 || panel.meta.maps;
  const lines = [[several ? `relevance (${channelName(channel)})` : "relevance", written(mapOf(panel)[position], exact)]];
  if (several && !panel.meta.maps && channels <= 4) lines.push(["by channel", own.map((value) => written(value, exact)).join(", ")]);
  const input = panel.values();
  if (panel.part.kind !== "text" && input.rows * input.columns === panel.view.count && input.channels <= 4) {
    const values = [...input.data.slice(position * input.channels, (position + 1) * input.channels)];
    lines.push(["input", values.map((value) => written(value, input.exact)).join(", ")]);
  }
  return lines;
}

function show(panel, position) {
  if (position === null) return hide();
  if (current && current.panel.sample !== panel.sample) hide();
  current = { panel, position };
  // The same place in the other methods of this sample is marked, too.
  const place = panel.view.place(position);
  const others = element("dl", { class: "others" });
  for (const one of panels) {
    if (one.sample !== panel.sample || one.index !== panel.index) continue;
    const there = one === panel ? position : one.view.near(place);
    one.view.mark(there);
    if (one === panel || there === null) continue;
    const value = written(mapOf(one)[there], relevanceOf(one).exact);
    others.append(element("dt", {}, facts.methods[one.method].name), element("dd", {}, value));
  }
  const heading = `${facts.methods[panel.method].name} · ${facts.samples[panel.sample].name}`;
  const list = element("dl");
  readout(panel, position).forEach(([label, value], i) => {
    list.append(element("dt", {}, label), element("dd", { "data-value": i ? null : "relevance" }, value));
  });
  tip.replaceChildren(element("strong", {}, heading), element("div", {}, positionName(panel, position)), list);
  if (others.children.length) tip.append(others);
  tip.hidden = false;
  const box = panel.view.box();
  const left = Math.min(box.right + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const below = box.bottom + 12 + tip.offsetHeight < document.documentElement.clientHeight;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${below ? box.bottom + 12 : Math.max(8, box.top - tip.offsetHeight - 12)}px`;
}

function hide() {
  tip.hidden = true;
  if (!current) return;
  for (const one of panels) if (one.sample === current.panel.sample) one.view.mark(null);
  current = null;
}

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function walked(view, position, key) {
  if (key === "Home") return 0;
  if (key === "End") return view.count - 1;
  const [across, down] = STEPS[key];
  const next = position + across + down * view.columns;
  const wraps = view.columns > 1 && across && Math.floor(next / view.columns) !== Math.floor(position / view.columns);
  return next < 0 || next >= view.count || wraps ? position : next;
}

function listen(panel) {
  const { stage } = panel.view;
  stage.addEventListener("pointermove", (event) => show(panel, panel.view.at(event)));
  stage.addEventListener("pointerleave", hide);
  stage.addEventListener("blur", hide);
  stage.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    if (!(event.key in STEPS) && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    const from = current?.panel === panel ? current.position : null;
    const middle = panel.view.near([0.5, 0.5]) ?? 0;
    show(panel, from === null && event.key in STEPS ? middle : walked(panel.view, from, event.key));
  });
}
