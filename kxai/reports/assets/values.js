// Numbers: stored arrays decoded, numbers written out; and small helpers for the document.

const facts = JSON.parse(document.getElementById("facts").textContent);

function decoded(blob) {
  const text = atob(document.getElementById(`blob${blob}`).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// The 65536 numbers of half precision.
let halves = null;

function halfTable() {
  if (halves) return halves;
  halves = new Float64Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    halves[bits] = bits & 0x8000 ? -size : size;
  }
  return halves;
}

// {data, rows, columns, channels, exact} of what the page stores at `meta`.
function arrayOf(meta) {
  const [rows, columns, channels] = meta.shape;
  const bytes = decoded(meta.blob);
  let data = bytes;
  if (meta.type === "f4") {
    const view = new DataView(bytes.buffer);
    data = new Float32Array(bytes.length / 4);
    for (let i = 0; i < data.length; i++) data[i] = view.getFloat32(4 * i, true);
  } else if (meta.type === "f2") {
    const table = halfTable();
    const factor = 2 ** meta.shift;
    data = new Float32Array(bytes.length / 2);
    for (let i = 0; i < data.length; i++) data[i] = table[bytes[2 * i] | (bytes[2 * i + 1] << 8)] * factor;
  }
  return { data, rows, columns, channels, exact: meta.type !== "f2" };
}

// The shortest decimal that means this single-precision number; of half precision the digits that are known.
function written(value, exact) {
  if (!exact) return `≈ ${plain(value, 4)}`;
  const rounded = Math.fround(value);
  for (let digits = 1; digits < 9; digits++) {
    const text = rounded.toPrecision(digits);
    if (Math.fround(Number(text)) === rounded) return plain(rounded, digits);
  }
  return plain(rounded, 9);
}

// A few digits; no row of zeros before or behind them.
function plain(value, digits) {
  if (value && Math.abs(value) < 1e-3) return value.toExponential(digits - 1).replace(/\.?0*e/, "e");
  return String(Number(value.toPrecision(digits)));
}

const brief = (value, digits = 3) => plain(value, digits);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// A name that breaks after its dots and underscores before it breaks anywhere.
const breakable = (name) => name.split(/(?<=[._/])/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
