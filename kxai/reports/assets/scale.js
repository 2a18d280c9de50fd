// One number per position, and the bound of the colours: as kxai.plots.scale defines them.

// What the reader has chosen.
const state = { sort: "given", descending: false, channel: "sum", scale: "panel", clip: 99.5, opacity: 0.85, over: true };

// A panel is one input of one sample as one method explains it.
function relevanceOf(panel) {
  panel.relevance ??= arrayOf(panel.meta);
  return panel.relevance;
}

// The channel that a panel can show: maps of one number per position have no channels to choose from.
function channelOf(panel) {
  const kept = panel.meta.maps ? 1 : panel.meta.shape[2];
  return Number.isInteger(state.channel) && state.channel >= kept ? "sum" : state.channel;
}

function mapOf(panel) {
  const channel = channelOf(panel);
  if (panel.map && panel.mapped === channel) return panel.map;
  const { data, rows, columns, channels } = relevanceOf(panel);
  const map = new Float32Array(rows * columns);
  for (let i = 0; i < map.length; i++) map[i] = reduced(panel, data, i * channels, channels, channel);
  panel.map = map;
  panel.mapped = channel;
  panel.sorted = null;
  return map;
}

function reduced(panel, data, start, channels, channel) {
  if (Number.isInteger(channel)) return data[start + channel];
  if (panel.meta.maps) return data[start + (channel === "sum" ? 0 : 1)];
  let result = 0;
  for (let k = start; k < start + channels; k++) {
    result = channel === "sum" ? result + data[k] : Math.max(result, Math.abs(data[k]));
  }
  return result;
}

function sortedOf(panel) {
  const map = mapOf(panel);
  panel.sorted ??= map.map(Math.abs).sort();
  return panel.sorted;
}

// The k-th smallest number of several sorted arrays. The bits of numbers >= 0 are ordered like the numbers.
function ranked(arrays, k) {
  if (arrays.length === 1) return arrays[0][k];
  const bits = new Uint32Array(1);
  const number = new Float32Array(bits.buffer);
  let low = 0;
  let high = 0x7f800000;
  while (low < high) {
    const middle = (low + high) >>> 1;
    bits[0] = middle;
    const value = number[0];
    if (arrays.reduce((count, array) => count + countUpTo(array, value), 0) > k) high = middle;
    else low = middle + 1;
  }
  bits[0] = low;
  return number[0];
}

function countUpTo(array, value) {
  let low = 0;
  let high = array.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (array[middle] <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

// The percentile by linear interpolation between ranks; if that is 0, the maximum.
function limit(arrays, clip) {
  const count = arrays.reduce((sum, array) => sum + array.length, 0);
  const position = ((count - 1) * clip) / 100;
  const rank = Math.floor(position);
  const share = position - rank;
  const low = ranked(arrays, rank);
  const high = share ? ranked(arrays, rank + 1) : low;
  const found = share < 0.5 ? low + (high - low) * share : high - (high - low) * (1 - share);
  return found || ranked(arrays, count - 1);
}

// Shared bounds are computed once for every choice.
const shared = new Map();

function boundOf(panel) {
  const clip = panel.part.kind === "table" ? 100 : state.clip; // bars are not cut
  if (state.scale === "panel") return limit([sortedOf(panel)], clip);
  const group = state.scale === "method" ? panel.method : "all";
  const key = [group, panel.index, state.channel, clip].join();
  if (!shared.has(key)) {
    const members = panels.filter((one) => one.index === panel.index && (group === "all" || one.method === group));
    shared.set(key, limit(members.map(sortedOf), clip));
  }
  return shared.get(key);
}
