"use strict";
// What runs in a page of maps. Bokeh draws map and curves; here bytes become colours, and controls and keys have meaning.

const earthsr = {
  longitude(value) {
    const turned = (((value + 180) % 360) + 360) % 360 - 180;
    if (Math.abs(Math.abs(turned) - 180) < 1e-9) return "180°";
    return `${earthsr.number(Math.abs(turned))}°${turned > 0 ? "E" : turned < 0 ? "W" : ""}`;
  },
  latitude(value) {
    return `${earthsr.number(Math.abs(value))}°${value > 0 ? "N" : value < 0 ? "S" : ""}`;
  },
  number(value) {
    return String(Number(value.toPrecision(6)));
  },
};

(async () => {
  const $ = (id) => document.getElementById(id);
  const fail = (error) => {
    $("failure").textContent = `This page does not work in this browser: ${error && error.message ? error.message : error}`;
    $("failure").hidden = false;
    console.error(error);
  };
  try {
    await main($);
    document.documentElement.dataset.ready = "yes";
  } catch (error) {
    fail(error);
  }
})();

async function main($) {
  const page = JSON.parse($("page").textContent);
  const layers = page.layers;
  const years = page.years;
  const state = { frame: 0, layer: layers[0], shade: page.shade.length > 0, cell: null, playing: false };

  // ---- bytes ----------------------------------------------------------------------------------------------------
  async function inflated(number) {
    const text = atob($(`blob-${number}`).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Numbers that are steps along rows of `width`, of two bytes with all high ones first, or of one.
  function summed(bytes, width, bits = 16) {
    const count = bits === 16 ? bytes.length / 2 : bytes.length;
    const values = bits === 16 ? new Uint16Array(count) : new Uint8Array(count);
    for (let start = 0; start < count; start += width) {
      let value = 0;
      for (let i = start; i < start + width; i++) {
        value += bits === 16 ? (bytes[i] << 8) + bytes[count + i] : bytes[i];
        values[i] = value;
      }
    }
    return values;
  }

  // Promises of what was unpacked, the last ones that were asked for.
  function remembered(make, most) {
    const kept = new Map();
    return (key) => {
      if (kept.has(key)) {
        const value = kept.get(key);
        kept.delete(key);
        kept.set(key, value);
        return value;
      }
      const value = make(key);
      kept.set(key, value);
      if (kept.size > most) kept.delete(kept.keys().next().value);
      return value;
    };
  }

  for (const layer of layers) {
    if (!layer.blobs) continue;
    layer.whole = remembered((number) => inflated(layer.blobs[number]), 3);
    layer.values = remembered(async (number) => {
      if (layer.smooth) return summed(await inflated(layer.blobs[number]), layer.columns, layer.bits);
      const key = layer.keys[number];
      if (key === null) return layer.whole(number);
      const [whole, stored] = await Promise.all([layer.whole(key), inflated(layer.blobs[number])]);
      for (let i = 0; i < stored.length; i++) stored[i] ^= whole[i];
      return stored;
    }, 6);
    layer.at = (frame) => layer.values(layer.blobs.length === 1 ? 0 : frame);
  }
  const shades = remembered((number) => inflated(page.shade[number]), 6);
  const classes = layers.find((layer) => layer.kind === "classes");

  // ---- colours --------------------------------------------------------------------------------------------------
  // 0xAABBGGRR, as four bytes of an image lie in memory.
  const colour = (hex) => {
    const rgb = parseInt(hex.slice(1), 16);
    return (0xff000000 | ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16)) >>> 0;
  };
  for (const layer of layers) {
    if (layer.kind === "values") {
      const palette = layer.palette.map(colour);
      const first = (layer.low - layer.offset) / layer.step;
      const last = (layer.high - layer.offset) / layer.step;
      layer.lookup = new Uint32Array(65536);
      for (let i = 0; i < layer.void; i++) {
        const share = Math.min(Math.max((i - first) / Math.max(last - first, 1e-9), 0), 1);
        layer.lookup[i] = palette[Math.round(share * (palette.length - 1))];
      }
    } else if (layer.kind === "classes") {
      layer.lookup = new Uint32Array(256);
      layer.classes.forEach((entry, i) => { layer.lookup[i] = colour(entry.colour); });
    }
  }

  // As earthsr.geo.terrain.lit does it: flat ground keeps its colour.
  const FLAT = Math.SQRT1_2, DEPTH = 0.62;
  function lit(pixels, light) {
    for (let i = 0; i < pixels.length; i++) {
      const pixel = pixels[i];
      if (light[i] === 255 || pixel === 0) continue;
      const change = DEPTH * (light[i] / 254 / FLAT - 1);
      let r = pixel & 255, g = (pixel >> 8) & 255, b = (pixel >> 16) & 255;
      if (change < 0) {
        r *= 1 + change; g *= 1 + change; b *= 1 + change;
      } else {
        const more = Math.min(change * 1.2, 1);
        r += (255 - r) * more; g += (255 - g) * more; b += (255 - b) * more;
      }
      pixels[i] = ((pixel & 0xff000000) | (b << 16) | (g << 8) | r) >>> 0;
    }
  }

  // Light changes colours, which are those of a scale where there is one.
  function shadeable(layer) {
    return page.shade.length > 0 && layer.rows === page.rows && layer.columns === page.columns &&
      (layer.kind !== "values" || layer.shaded);
  }

  async function coloured(layer, frame) {
    let pixels;
    if (layer.kind === "change") {
      const [now, anchor] = await Promise.all([classes.at(frame), classes.at(page.anchor)]);
      pixels = new Uint32Array(now.length);
      const same = dark.matches ? 0xff4a443f : 0xffdcdcdc;
      for (let i = 0; i < now.length; i++) {
        if (anchor[i] === 255 && now[i] === 255) continue;
        pixels[i] = now[i] === anchor[i] ? same : classes.lookup[now[i]] || 0xff00ffff;
      }
    } else {
      const values = await layer.at(frame);
      pixels = new Uint32Array(values.length);
      const lookup = layer.lookup;
      for (let i = 0; i < values.length; i++) pixels[i] = lookup[values[i]];
    }
    if (state.shade && shadeable(layer)) {
      lit(pixels, await shades(page.shade.length === 1 ? 0 : frame));
    }
    return pixels;
  }

  // Of what is smaller on the screen than it is, blocks of cells have their mean colour.
  function reduced(pixels, rows, columns, times) {
    const high = Math.floor(rows / times), wide = Math.floor(columns / times);
    const result = new Uint32Array(high * wide);
    for (let y = 0; y < high; y++) {
      for (let x = 0; x < wide; x++) {
        let r = 0, g = 0, b = 0, count = 0;
        for (let dy = 0; dy < times; dy++) {
          const start = (y * times + dy) * columns + x * times;
          for (let i = start; i < start + times; i++) {
            const pixel = pixels[i];
            if (pixel === 0) continue;
            r += pixel & 255; g += (pixel >> 8) & 255; b += (pixel >> 16) & 255; count++;
          }
        }
        if (count * 2 >= times * times) {
          result[y * wide + x] = (0xff000000 | ((b / count) << 16) | ((g / count) << 8) | (r / count)) >>> 0;
        }
      }
    }
    return [result, high, wide];
  }

  function blended(first, second, share) {
    const result = new Uint32Array(first.length);
    for (let i = 0; i < first.length; i++) {
      const a = first[i], b = second[i];
      if (a === 0 || b === 0) { result[i] = share < 0.5 ? a : b; continue; }
      const red = (a & 255) * (1 - share) + (b & 255) * share;
      const green = ((a >> 8) & 255) * (1 - share) + ((b >> 8) & 255) * share;
      const blue = ((a >> 16) & 255) * (1 - share) + ((b >> 16) & 255) * share;
      result[i] = (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
    }
    return result;
  }

  // ---- map ------------------------------------------------------------------------------------------------------
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const [west, south, east, north] = page.bounds;
  const height = (north - south) * page.aspect, width = east - west;
  $("map").style.setProperty("--ratio", String(Math.min(Math.max(width / height, 0.6), 2.4)));
  const plots = JSON.parse($("plots").textContent);
  const plot = await embedded(plots[0], "map");
  const image = plot.document.get_model_by_name("image");
  const cells = plot.document.get_model_by_name("cell");
  const Pixels = image.data.image[0].constructor;

  async function embedded(item, target) {
    await Bokeh.embed.embed_item(item, target);
    const drawn = Bokeh.documents[Bokeh.documents.length - 1];
    return drawn.roots()[0];
  }

  function frameSize() {
    return [plot.inner_width || $("map").clientWidth, plot.inner_height || $("map").clientHeight];
  }

  // Both ranges so that a degree of latitude is as long as it is on the ground.
  function look(centre_x, centre_y, per_pixel) {
    const [wide, high] = frameSize();
    const half_x = (wide * per_pixel) / 2, half_y = (high * per_pixel) / 2 / page.aspect;
    plot.x_range.setv({ start: centre_x - half_x, end: centre_x + half_x });
    plot.y_range.setv({ start: centre_y - half_y, end: centre_y + half_y });
  }
  function perPixel() {
    return (plot.x_range.end - plot.x_range.start) / Math.max(frameSize()[0], 1);
  }
  function middle() {
    return [(plot.x_range.start + plot.x_range.end) / 2, (plot.y_range.start + plot.y_range.end) / 2];
  }
  function all() {
    const [wide, high] = frameSize();
    look((west + east) / 2, (south + north) / 2, Math.max(width / wide, height / high));
  }

  let latest = 0, painted = "";
  async function paint(force) {
    const ticket = ++latest;
    const { layer, frame } = state;
    const low = Math.floor(frame), share = frame - low;
    const times = layer.kind === "values"
      ? Math.max(1, Math.min(8, Math.floor(perPixel() / ((layer.bounds[2] - layer.bounds[0]) / layer.columns))))
      : 1;
    const key = [layer.name, frame, state.shade, times, dark.matches].join();
    if (key === painted && !force) return;
    let pixels = await coloured(layer, low);
    if (share > 0) pixels = blended(pixels, await coloured(layer, low + 1), share);
    if (ticket !== latest) return;
    painted = key;
    let { rows, columns } = layer;
    let [left, bottom, right, top] = layer.bounds;
    if (times > 1) {
      const cell_x = (right - left) / columns, cell_y = (top - bottom) / rows;
      [pixels, rows, columns] = reduced(pixels, rows, columns, times);
      right = left + columns * times * cell_x;
      bottom = top - rows * times * cell_y;
    }
    const array = new Pixels(pixels, [rows, columns]);
    image.data = { image: [array], x: [left], y: [top], w: [right - left], h: [top - bottom] };
    document.documentElement.dataset.painted = key;
    await fillLegend();
  }

  // ---- reading --------------------------------------------------------------------------------------------------
  const place = (x, y) => page.geographic
    ? `${earthsr.latitude(Number(y.toFixed(4)))} ${earthsr.longitude(Number(x.toFixed(4)))}`
    : `${(x * page.unit_km).toFixed(2)} E, ${(y * page.unit_km).toFixed(2)} N km`;

  function cellOf(grid, x, y) {
    const [left, bottom, right, top] = grid.bounds;
    const column = Math.floor(((x - left) / (right - left)) * grid.columns);
    const row = Math.floor(((top - y) / (top - bottom)) * grid.rows);
    return row < 0 || column < 0 || row >= grid.rows || column >= grid.columns ? null : [row, column];
  }

  const fixed = (value, digits) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1");
  function valueText(layer, number) {
    if (layer.kind === "classes") return number === 255 ? "no class" : layer.classes[number].name;
    if (number === layer.void) return `${layer.title.replace(/^./, (letter) => letter.toLowerCase())}: no value`;
    const value = layer.offset + number * layer.step;
    return `${layer.title.replace(/^./, (letter) => letter.toLowerCase())} ${fixed(value, layer.digits)}${layer.units ? " " + layer.units : ""}`;
  }

  let readings = 0;
  async function read(x, y) {
    const ticket = ++readings;
    if (!cellOf(page, x, y)) { $("reading").textContent = "\u00a0"; return; }
    const frame = Math.round(state.frame);
    const parts = [place(x, y)];
    if (page.frames.length > 1) parts.push(page.frames[frame]);
    for (const layer of layers) {
      const cell = layer.at ? cellOf(layer, x, y) : null;
      if (!cell) continue;
      const values = await layer.at(frame);
      const number = values[cell[0] * layer.columns + cell[1]];
      parts.push(valueText(layer, number));
      if (layer.kind === "classes" && page.anchor !== null && frame !== page.anchor) {
        const before = (await layer.at(page.anchor))[cell[0] * layer.columns + cell[1]];
        if (before !== number) parts.push(`was ${valueText(layer, before)} in ${page.frames[page.anchor]}`);
      }
    }
    if (ticket === readings) $("reading").textContent = parts.join(" · ");
  }

  // ---- legend and curves ----------------------------------------------------------------------------------------
  const curves = page.curves;
  const blocks = remembered(async (number) => summed(await inflated(curves.blobs[number]), page.frames.length), 8);
  let chosen = null; // {map: [[km2]], scenario, area} of a coarse cell

  async function seriesOf(row, column) {
    const across = Math.ceil(curves.columns / curves.block);
    const [i, j] = [Math.floor(row / curves.block), Math.floor(column / curves.block)];
    const values = await blocks(i * across + j);
    const wide = Math.min(curves.block, curves.columns - j * curves.block);
    const series = curves.names.length * (curves.scenario ? 2 : 1);
    const count = page.frames.length;
    const start = ((row - i * curves.block) * wide + (column - j * curves.block)) * series * count;
    const area = curves.areas[row][0];
    const line = (s) => Array.from(values.subarray(start + s * count, start + (s + 1) * count),
      (value) => value === curves.void ? null : (value / curves.steps) * area);
    const lines = (from) => curves.names.map((_, k) => line(from + k));
    return { map: lines(0), scenario: curves.scenario ? lines(curves.names.length) : null, area };
  }

  async function choose(x, y) {
    if (!curves) return;
    const cell = cellOf(curves, x, y);
    if (!cell) return;
    const [row, column] = cell;
    const series = await seriesOf(row, column);
    if (series.map.every((line) => line.every((value) => !value))) return;
    chosen = series;
    const [left, bottom, right, top] = curves.bounds;
    const dx = (right - left) / curves.columns, dy = (top - bottom) / curves.rows;
    const edges = { left: left + column * dx, right: left + (column + 1) * dx, top: top - row * dy, bottom: top - (row + 1) * dy };
    cells.data = Object.fromEntries(Object.entries(edges).map(([key, value]) => [key, [value]]));
    $("where").textContent = `Areas in the coarse cell at ${place((edges.left + edges.right) / 2, (edges.top + edges.bottom) / 2)}`;
    $("everything").hidden = false;
    drawCurves();
    await fillLegend();
  }

  function wholeMap() {
    chosen = null;
    cells.data = { left: [], right: [], top: [], bottom: [] };
    $("where").textContent = "Areas in the whole map";
    $("everything").hidden = true;
    drawCurves();
    fillLegend();
  }

  let chart = null;
  function drawCurves() {
    if (!chart) return;
    const shown = chosen || curves.whole;
    for (const name of ["map", "scenario"]) {
      const source = chart.document.get_model_by_name(`curves-${name}`);
      const lines = shown[name] || [];
      const there = lines.map((_, k) => k).filter((k) => lines[k].some((value) => value > 0));
      source.data = {
        xs: there.map(() => years),
        ys: there.map((k) => lines[k].map((value) => value === null ? NaN : value)),
        colour: there.map((k) => curves.colours[k]),
      };
    }
    const heights = ["map", "scenario"].flatMap((name) => (shown[name] || []).flat()).filter((value) => value !== null);
    const top = Math.max(...heights, 0), edge = 0.05 * top || 1;
    const bottom = Math.min(...heights.filter((value) => value > 0), top);
    chart.y_range.setv({ start: bottom < 0.5 * top ? -edge / 4 : bottom - edge, end: top + edge });
    $("curves-key").textContent = curves.scenario ? "Lines: the maps. Dashed: the scenario, of the same coarse cells." : "";
  }

  const percent = (part, of) => part === null || !of ? "–" : `${((100 * part) / of).toFixed(1)} %`;
  async function fillLegend() {
    const layer = state.layer, frame = Math.round(state.frame), box = $("legend");
    const label = page.frames.length > 1 ? `${layer.title}, ${page.frames[frame]}` : layer.title;
    if (layer.kind === "values") {
      const stops = Array.from({ length: 24 }, (_, i) => layer.palette[Math.round((i / 23) * (layer.palette.length - 1))]);
      box.innerHTML = `<h2></h2><div id="bar"></div><div id="ends"><span></span><span></span><span></span></div>`;
      box.querySelector("h2").textContent = label + (layer.units ? ` (${layer.units})` : "");
      box.querySelector("#bar").style.background = `linear-gradient(to right, ${stops.join(",")})`;
      const digits = layer.high - layer.low >= 20 ? 0 : layer.digits;
      [layer.low, (layer.low + layer.high) / 2, layer.high].forEach((value, i) => {
        box.querySelectorAll("#ends span")[i].textContent = fixed(value, digits);
      });
      return;
    }
    const list = classes.classes;
    const counts = await countsOf(frame, layer.kind === "change");
    const shown = curves ? (chosen || curves.whole) : null;
    const sum = shown ? chosen ? chosen.area : shown.map.reduce((total, line) => total + (line[frame] || 0), 0) : 0;
    const wanted = Boolean(shown && shown.scenario && curves.scenario);
    const rows = [];
    list.forEach((entry, k) => {
      const area = shown ? shown.map[k][frame] : null;
      const occurs = counts[k] || (shown && (area > 0 || (wanted && shown.scenario[k][frame] > 0)));
      if (!occurs) return;
      rows.push([entry, percent(area, sum), wanted ? percent(shown.scenario[k][frame], sum) : null]);
    });
    const table = document.createElement("table");
    const caption = table.createCaption();
    caption.textContent = layer.kind === "change"
      ? `Changed since ${page.frames[page.anchor]}: ${percent(counts.changed, counts.known)} of the cells`
      : label;
    const head = table.insertRow();
    const heads = ["class", ...(shown ? [chosen ? "cell" : "map"] : []), ...(wanted ? ["scenario"] : [])];
    for (const text of heads) head.appendChild(Object.assign(document.createElement("th"), { textContent: text, scope: "col" }));
    for (const [entry, ours, theirs] of rows) {
      const row = table.insertRow();
      const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
      swatch.style.background = entry.colour;
      row.insertCell().append(swatch, entry.name);
      if (shown) row.insertCell().textContent = ours;
      if (wanted) row.insertCell().textContent = theirs;
    }
    if (layer.kind === "change") {
      const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
      swatch.style.background = dark.matches ? "#3f444a" : "#dcdcdc";
      const first = table.insertRow(1).insertCell();
      first.colSpan = heads.length;
      first.append(swatch, "as it was; colours are what it has become");
    }
    box.replaceChildren(table);
  }

  const countsOf = async (frame, change) => {
    const values = await classes.at(frame);
    const counts = new Array(classes.classes.length).fill(0);
    for (let i = 0; i < values.length; i++) if (values[i] !== 255) counts[values[i]]++;
    if (change) {
      const anchor = await classes.at(page.anchor);
      counts.changed = counts.known = 0;
      for (let i = 0; i < values.length; i++) {
        if (values[i] === 255 && anchor[i] === 255) continue;
        counts.known++;
        if (values[i] !== anchor[i]) counts.changed++;
      }
    }
    return counts;
  };

  // ---- controls -------------------------------------------------------------------------------------------------
  function text(frame) {
    const low = Math.floor(frame), share = frame - low;
    if (share === 0) return page.frames[low];
    return `${page.frames[low]} → ${page.frames[low + 1]}, ${Math.round(100 * share)} %`;
  }
  let turn = Promise.resolve();
  function go(frame) {
    const last = page.frames.length - 1;
    state.frame = Math.min(Math.max(frame, 0), last);
    $("frame").value = String(state.frame);
    $("now").textContent = text(state.frame);
    $("frame").setAttribute("aria-valuetext", text(state.frame));
    if (chart && years) chart.document.get_model_by_name("now").location = years[Math.round(state.frame)];
    turn = paint();
    return turn;
  }
  async function play() {
    state.playing = !state.playing;
    $("play").textContent = state.playing ? "❚❚" : "▶";
    $("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
    const last = page.frames.length - 1;
    const stride = page.blend ? 0.1 : 1, pause = page.blend ? 80 : 500;
    if (state.playing && state.frame >= last) await go(0);
    while (state.playing) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (!state.playing) return;
      if (state.frame >= last) { await play(); return; }
      await go(Math.round((state.frame + stride) * 100) / 100);
    }
  }

  $("title").textContent = page.title;
  $("about").textContent = [...page.notes.slice(0, 1), ...(page.crs === "none" ? [] : [page.crs])].join(" · ");
  for (const note of page.notes) $("notes").appendChild(Object.assign(document.createElement("li"), { textContent: note }));
  for (const [key, value] of Object.entries(page.facts)) {
    $("facts").append(Object.assign(document.createElement("dt"), { textContent: key }),
      Object.assign(document.createElement("dd"), { textContent: value }));
  }
  $("more").hidden = page.notes.length === 0 && Object.keys(page.facts).length === 0;
  layers.forEach((layer, i) => $("layer").add(new Option(layer.title, String(i))));
  $("layer-box").hidden = layers.length < 2;
  $("layer").addEventListener("change", () => {
    state.layer = layers[Number($("layer").value)];
    $("shade").disabled = !shadeable(state.layer);
    paint();
  });
  $("shade-box").hidden = page.shade.length === 0;
  $("shade").addEventListener("change", () => { state.shade = $("shade").checked; paint(); });
  const several = page.frames.length > 1;
  $("time").hidden = !several;
  $("keys-time").hidden = !several;
  $("keys-cell").hidden = !curves;
  // As wide as the longest of its texts, so that the slider stays where it is; in a line of its own where that is much.
  const letters = Math.max(...page.frames.map((name) => name.length)) * (page.blend ? 2 : 1) + (page.blend ? 9 : 1);
  $("now").style.setProperty("--letters", `${Math.min(letters, 26)}ch`);
  $("time").classList.toggle("long", letters > 8);
  $("frame").max = String(page.frames.length - 1);
  $("frame").step = page.blend ? "0.05" : "1";
  $("frame").addEventListener("input", () => go(Number($("frame").value)));
  $("play").addEventListener("click", play);
  $("before").addEventListener("click", () => go(Math.ceil(state.frame) - 1));
  $("after").addEventListener("click", () => go(Math.floor(state.frame) + 1));
  $("everything").addEventListener("click", wholeMap);
  $("map").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [x, y] = middle(), size = perPixel(), [wide, high] = frameSize();
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      look(x + (dx * wide * size) / 8, y + (dy * high * size) / 8 / page.aspect, size);
    } else if (event.key === "+" || event.key === "=") look(x, y, size / 1.5);
    else if (event.key === "-" || event.key === "_") look(x, y, size * 1.5);
    else if (event.key === "0") all();
    else if (event.key === "[" && several) go(Math.ceil(state.frame) - 1);
    else if (event.key === "]" && several) go(Math.floor(state.frame) + 1);
    else if (event.key === "Enter") choose(...middle());
    else return;
    event.preventDefault();
    read(...middle());
  });
  plot.on_event("mousemove", (event) => read(event.x, event.y));
  plot.on_event("mouseleave", () => { readings++; $("reading").textContent = "\u00a0"; });
  plot.on_event("tap", (event) => { read(event.x, event.y); choose(event.x, event.y); });
  plot.on_event("reset", () => setTimeout(all, 0));
  plot.x_range.on_change(plot.x_range.properties.start, () => { clearTimeout(repaint); repaint = setTimeout(paint, 120); });
  let repaint = 0, size = "";
  new ResizeObserver(() => {
    const now = `${$("map").clientWidth} ${$("map").clientHeight}`;
    if (now === size) return;
    size = now;
    for (const axis of plot.below) axis.ticker.desired_num_ticks = Math.max(2, Math.round($("map").clientWidth / 110));
    setTimeout(() => { all(); paint(true); }, 60);
  }).observe($("map"));

  // ---- looks ----------------------------------------------------------------------------------------------------
  function dress(drawn) {
    const style = getComputedStyle(document.documentElement);
    const [ink, soft, line, ground, none] =
      ["--ink", "--soft", "--line", "--ground", "--void"].map((name) => style.getPropertyValue(name).trim());
    drawn.setv({ border_fill_color: ground, background_fill_color: drawn === plot ? none : ground, outline_line_color: line });
    for (const axis of [...drawn.below, ...drawn.left]) {
      if (!axis.properties.axis_line_color) continue;
      axis.setv({
        axis_line_color: line, major_tick_line_color: soft, minor_tick_line_color: line,
        major_label_text_color: ink, axis_label_text_color: soft,
      });
    }
    for (const grid of drawn.center) if (grid.properties.grid_line_color && drawn !== plot) grid.grid_line_color = line;
  }
  if (curves && years && plots.length > 1) {
    $("areas").hidden = false;
    chart = await embedded(plots[1], "curves");
    chart.on_event("tap", (event) => {
      const distances = years.map((year) => Math.abs(year - event.x));
      go(distances.indexOf(Math.min(...distances)));
    });
    wholeMap();
  }
  const dressed = () => {
    dress(plot);
    if (chart) {
      dress(chart);
      chart.document.get_model_by_name("now").line_color = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    }
    paint(true);
  };
  dark.addEventListener("change", dressed);
  dressed();
  await new Promise((resolve) => setTimeout(resolve, 80));
  all();
  await go(page.anchor === null ? 0 : page.anchor);
  await paint(true);
}
