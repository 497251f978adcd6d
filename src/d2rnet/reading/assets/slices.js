"use strict";
// Axes of all arrays: 0 z, to the head; 1 y, to the back; 2 x, to the patient's left. Pictures show the patient's right on the left.
const DATA = JSON.parse(document.getElementById("reading-data").textContent);
const SHAPE = DATA.shape;
const STEP = [SHAPE[1] * SHAPE[2], SHAPE[2], 1]; // from voxel to voxel along each axis
const ATTENTION = [255, 150, 0]; // as .scale in slices.css
const MOST_OPAQUE = 0.6;
const at = SHAPE.map((side) => Math.floor(side / 2)); // voxel that all planes go through
const planes = [...document.querySelectorAll(".plane")].map(planeOf);
const buttons = [...document.querySelectorAll("button[data-structure]")];
let voxels = null;
let attention = null;
let shades = null; // level -> grey, as a pixel
let lit = null; // structure whose attention is shown
let pinned = null; // button that keeps it

function planeOf(figure) {
  const down = Number(figure.dataset.down);
  const across = Number(figure.dataset.across);
  const canvas = figure.querySelector("canvas");
  canvas.height = SHAPE[down];
  canvas.width = SHAPE[across];
  const context = canvas.getContext("2d", { willReadFrequently: true }); // written and read here, never by a GPU
  return {
    figure, canvas, context, down, across,
    along: 3 - down - across,
    flipped: down === 0, // the head is on top, and z grows to the head
    image: context.createImageData(canvas.width, canvas.height),
    slider: figure.querySelector("input"),
    frame: figure.querySelector(".frame"),
  };
}

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Grey of each level in a window, as 32 bits that are the same in either order of bytes but for opacity. */
function chooseWindow(name) {
  const [centre, width] = DATA.windows[name];
  const pixels = new Uint8ClampedArray(4 * DATA.levels_hu.length);
  DATA.levels_hu.forEach((hu, level) => {
    const grey = (255 * (hu - centre + width / 2)) / width;
    pixels.set([grey, grey, grey, 255].map((value) => Math.max(0, Math.min(255, value))), 4 * level);
  });
  shades = new Uint32Array(pixels.buffer);
  for (const button of document.querySelectorAll("[data-window]")) button.setAttribute("aria-pressed", String(button.dataset.window === name));
  draw();
}

function draw() {
  for (const plane of planes) {
    drawSlice(plane);
    if (lit !== null) drawAttention(plane);
    drawCross(plane);
  }
}

function drawSlice({ context, image, along, down, across, flipped }) {
  const pixels = new Uint32Array(image.data.buffer);
  const start = at[along] * STEP[along];
  let to = 0;
  for (let row = 0; row < SHAPE[down]; row += 1) {
    let from = start + (flipped ? SHAPE[down] - 1 - row : row) * STEP[down];
    for (let column = 0; column < SHAPE[across]; column += 1) {
      pixels[to] = shades[voxels[from]];
      to += 1;
      from += STEP[across];
    }
  }
  context.putImageData(image, 0, 0);
}

/** Draw the attention of a slice: linear between the two layers of patches next to it, smoothed within the plane by the canvas. */
function drawAttention({ context, canvas, along, down, across, flipped }) {
  const grid = DATA.grid;
  const step = [grid[1] * grid[2], grid[2], 1];
  const place = Math.max(0, Math.min(grid[along] - 1, ((at[along] + 0.5) / SHAPE[along]) * grid[along] - 0.5));
  const below = Math.floor(place);
  const above = Math.min(below + 1, grid[along] - 1);
  const first = lit * grid[0] * step[0];
  const small = document.createElement("canvas");
  small.height = grid[down];
  small.width = grid[across];
  const pen = small.getContext("2d");
  const image = pen.createImageData(small.width, small.height);
  for (let row = 0; row < small.height; row += 1) {
    for (let column = 0; column < small.width; column += 1) {
      const patch = first + (flipped ? small.height - 1 - row : row) * step[down] + column * step[across];
      const value = (above - place) * attention[patch + below * step[along]] + (place - below) * attention[patch + above * step[along]];
      const mixed = above === below ? attention[patch + below * step[along]] : value;
      image.data.set([...ATTENTION, MOST_OPAQUE * mixed], 4 * (row * small.width + column));
    }
  }
  pen.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

function drawCross({ figure, slider, along, down, across, flipped }) {
  const share = (axis, turned) => {
    const centre = (at[axis] + 0.5) / SHAPE[axis];
    return `${100 * (turned ? 1 - centre : centre)}%`;
  };
  figure.querySelector(".line.down").style.left = share(across, false);
  figure.querySelector(".line.across").style.top = share(down, flipped);
  slider.value = at[along] + 1;
  figure.querySelector("output").textContent = `${at[along] + 1} / ${SHAPE[along]}`;
}

function moveTo(axis, slice) {
  at[axis] = Math.max(0, Math.min(SHAPE[axis] - 1, slice));
}

/** Go to the voxel under the pointer; the plane itself stays on its slice. */
function point(plane, event) {
  const box = plane.frame.getBoundingClientRect();
  const down = Math.floor(((event.clientY - box.top) / box.height) * SHAPE[plane.down]);
  moveTo(plane.down, plane.flipped ? SHAPE[plane.down] - 1 - down : down);
  moveTo(plane.across, Math.floor(((event.clientX - box.left) / box.width) * SHAPE[plane.across]));
  draw();
}

function setUpPlane(plane) {
  plane.slider.addEventListener("input", () => {
    moveTo(plane.along, Number(plane.slider.value) - 1);
    draw();
  });
  plane.frame.addEventListener("wheel", (event) => {
    if (event.ctrlKey) return; // the browser's zoom
    event.preventDefault();
    moveTo(plane.along, at[plane.along] + Math.sign(event.deltaY) * (plane.along === 0 ? -1 : 1)); // up is to the head
    draw();
  }, { passive: false });
  plane.frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType !== "mouse") return; // a finger may be about to scroll the page
    event.preventDefault();
    plane.frame.setPointerCapture(event.pointerId);
  });
  plane.frame.addEventListener("click", (event) => {
    plane.slider.focus({ preventScroll: true });
    point(plane, event);
  });
  plane.frame.addEventListener("pointermove", (event) => {
    if (plane.frame.hasPointerCapture(event.pointerId)) point(plane, event);
  });
  plane.canvas.hidden = false;
  plane.figure.querySelector("img").hidden = true;
}

function legendOf(name) {
  return `Attention for ${name}, none to most: attended, not proof.`;
}

/** Show the attention of a structure, null for none. */
function light(structure) {
  lit = structure;
  for (const button of buttons) button.classList.toggle("lit", structure !== null && Number(button.dataset.structure) === structure);
  document.getElementById("attended").textContent = structure === null ? "" : legendOf(DATA.structures[structure]);
  document.querySelector(".legend").classList.toggle("idle", structure === null);
  draw();
}

/** Keep the attention of a button's structure and go to the patch that it is greatest in; a second press lets go. */
function pin(button) {
  pinned = button === pinned ? null : button;
  for (const other of buttons) other.setAttribute("aria-pressed", String(other === pinned));
  light(pinned && Number(pinned.dataset.structure));
  if (pinned) goToMost(lit);
}

function goToMost(structure) {
  const count = DATA.grid[0] * DATA.grid[1] * DATA.grid[2];
  const own = attention.subarray(structure * count, (structure + 1) * count);
  let most = 0;
  own.forEach((value, patch) => {
    if (value > own[most]) most = patch;
  });
  if (!own[most]) return; // it attends to nothing
  const [, rows, columns] = DATA.grid;
  const patch = [Math.floor(most / (rows * columns)), Math.floor(most / columns) % rows, most % columns];
  patch.forEach((place, axis) => moveTo(axis, Math.floor(((place + 0.5) / DATA.grid[axis]) * SHAPE[axis])));
  draw();
}

function setUpSentences() {
  for (const button of buttons) {
    const structure = Number(button.dataset.structure);
    for (const name of ["mouseenter", "focus"]) button.addEventListener(name, () => pinned || light(structure));
    for (const name of ["mouseleave", "blur"]) button.addEventListener(name, () => pinned || light(null));
    button.addEventListener("click", () => pin(button));
  }
}

function setUpKeys() {
  const windows = [...document.querySelectorAll("[data-window]")];
  for (const button of windows) button.addEventListener("click", () => chooseWindow(button.dataset.window));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const chosen = windows.find((button) => button.getAttribute("aria-keyshortcuts") === event.key);
    if (chosen) chooseWindow(chosen.dataset.window);
    if (event.key === "Escape") pin(pinned);
  });
}

async function start() {
  try {
    [voxels, attention] = await Promise.all([unpack(DATA.volume), unpack(DATA.attention)]);
  } catch {
    document.getElementById("attended").textContent = "This browser cannot unpack the volume: the middle slices are shown.";
    return;
  }
  for (let voxel = STEP[0]; voxel < voxels.length; voxel += 1) voxels[voxel] += voxels[voxel - STEP[0]];
  planes.forEach(setUpPlane);
  setUpSentences();
  setUpKeys();
  chooseWindow("lung");
  const longest = DATA.structures.reduce((one, other) => (other.length > one.length ? other : one), "");
  document.querySelector(".legend").dataset.longest = legendOf(longest);
  document.getElementById("attended").textContent = "";
  document.body.classList.add("ready");
}

start();
