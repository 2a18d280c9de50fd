// Colours, and pictures made of them: as kxai.plots.color and kxai.plots.raster define them.

const colors = Uint8Array.from(facts.colors);
const steps = colors.length / 3 - 1;

// Index of the colour of a share of the bound; halves go to the even neighbour, as in NumPy.
function colorIndex(share) {
  const position = ((Math.min(1, Math.max(-1, share)) + 1) * steps) / 2;
  const low = Math.floor(position);
  const rest = position - low;
  return 3 * (rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low);
}

function colorText(share) {
  const start = colorIndex(share);
  return `rgb(${colors[start]}, ${colors[start + 1]}, ${colors[start + 2]})`;
}

// Relevance at a pixel of a picture that may have another size.
function sampler(panel, width, height) {
  const { rows, columns } = relevanceOf(panel);
  const map = mapOf(panel);
  if (rows === height && columns === width) return (x, y) => map[y * width + x];
  return (x, y) => map[Math.floor(((y + 0.5) * rows) / height) * columns + Math.floor(((x + 0.5) * columns) / width)];
}

// Draws relevance, over its picture if there is one and the reader wants it.
function paint(panel, canvas, bound) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const at = sampler(panel, width, height);
  const under = state.over ? panel.picture() : null;
  const pixels = image.data; // rounds by itself, halves to the even neighbour
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const share = Math.min(1, Math.max(-1, at(x, y) / (bound || 1)));
      if (under) blend(pixels, 4 * i, gray(under, i), share);
      else pixels.set(colors.subarray(colorIndex(share), colorIndex(share) + 3), 4 * i);
      pixels[4 * i + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

function gray({ data, channels }, pixel) {
  if (channels === 1) return data[pixel];
  return 0.2126 * data[3 * pixel] + 0.7152 * data[3 * pixel + 1] + 0.0722 * data[3 * pixel + 2];
}

// A pixel is covered the more, the larger its magnitude; half the map's range at the least tints it.
function blend(pixels, start, under, share) {
  const weight = state.opacity * Math.sqrt(Math.abs(share));
  const color = colorIndex(Math.sign(share) * (0.45 + 0.35 * Math.abs(share)));
  for (let k = 0; k < 3; k++) pixels[start + k] = (1 - weight) * under + weight * colors[color + k];
}

function paintPicture({ data, channels }, canvas) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = data[channels * i + (channels === 1 ? 0 : k)];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// A sequence: relevance as coloured columns, the input over them but for a ribbon at the foot that nothing covers.
const RIBBON = 26;

function paintSequence(panel, canvas, bound) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const map = mapOf(panel);
  for (let x = 0; x < width; x++) {
    context.fillStyle = colorText(strongest(map, (x * map.length) / width, ((x + 1) * map.length) / width) / (bound || 1));
    context.fillRect(x, 0, 1, height);
  }
  const input = panel.values();
  const channel = channelOf(panel);
  const all = [...Array(input.channels).keys()];
  const drawn = Number.isInteger(channel) && channel < input.channels ? [channel] : all;
  if (isOneHot(input)) drawLetters(context, input, drawn, width, height - RIBBON);
  else if (drawn.length <= 4 && input.columns > 1) drawLines(context, input, drawn, width, height - RIBBON); // more could not be told apart
}

// Where steps share a dot, the strongest is seen.
function strongest(map, from, to) {
  let found = 0;
  for (let i = Math.floor(from); i < to; i++) if (Math.abs(map[i]) > Math.abs(found)) found = map[i];
  return found;
}

function isOneHot({ data, columns, channels }) {
  if (channels < 2) return false;
  for (let i = 0; i < columns; i++) {
    let sum = 0;
    for (let k = i * channels; k < (i + 1) * channels; k++) {
      if (data[k] !== 0 && data[k] !== 1) return false;
      sum += data[k];
    }
    if (sum > 1) return false;
  }
  return true;
}

// One-hot steps: a mark in the row of the channel that is there, the first channel on top.
function drawLetters(context, { data, columns, channels }, drawn, width, height) {
  const row = height / channels;
  const thick = Math.min(5, row / 2);
  for (const [color, rim] of [["#fff", 1.5], ["#222", 0]]) {
    context.fillStyle = color;
    for (const k of drawn) {
      for (let i = 0; i < columns; i++) {
        if (!data[i * channels + k]) continue;
        context.fillRect((i * width) / columns, (k + 0.5) * row - thick / 2 - rim, width / columns, thick + 2 * rim);
      }
    }
  }
}

function drawLines(context, { data, columns, channels }, drawn, width, height) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < columns; i++) {
    for (const k of drawn) {
      low = Math.min(low, data[i * channels + k]);
      high = Math.max(high, data[i * channels + k]);
    }
  }
  const thick = columns > width / 4 ? 1 : 2;
  for (const k of drawn) {
    context.beginPath();
    for (let i = 0; i < columns; i++) {
      const y = (data[i * channels + k] - low) / (high - low || 1);
      context.lineTo(((i + 0.5) * width) / columns, height - 6 - y * (height - 12));
    }
    stroke(context, 2.5 * thick, "#fff", []); // a light edge, to be seen on dark colours
    stroke(context, thick, "#222", [[], [6, 3], [2, 3], [8, 3, 2, 3]][drawn.indexOf(k)]);
  }
}

function stroke(context, width, color, dashes) {
  context.lineWidth = width;
  context.strokeStyle = color;
  context.setLineDash(dashes);
  context.stroke();
}
