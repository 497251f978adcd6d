"use strict";
const shapes = [...document.querySelectorAll(".box, .number")];
const items = [...document.querySelectorAll("li[data-boxes]")];
const listed = (places) => (places ? places.split(" ") : []);
const boxesOf = (item) => listed(item.dataset.boxes);
function light(boxes, source) {
  const wanted = new Set(boxes);
  const seen = new Set(source ? listed(source.dataset.attended) : []);
  const sentence = source && source.closest("#sentences");
  const belongs = (item) => !(sentence && item.closest("#sentences")) && boxesOf(item).some((box) => wanted.has(box));
  for (const shape of shapes) {
    shape.classList.toggle("lit", wanted.has(shape.dataset.box));
    shape.classList.toggle("seen", seen.has(shape.dataset.box));
  }
  for (const item of items) item.classList.toggle("lit", item === source || belongs(item));
  for (const svg of document.querySelectorAll("svg")) svg.classList.toggle("dim", wanted.size + seen.size > 0);
}
function listen(element, boxes) {
  for (const name of ["mouseenter", "focus"]) element.addEventListener(name, () => light(boxes, element));
  for (const name of ["mouseleave", "blur"]) element.addEventListener(name, () => light([], null));
}
for (const item of items) listen(item, boxesOf(item));
for (const shape of shapes) listen(shape, [shape.dataset.box]);
const weaker = document.getElementById("weaker");
const show = () => document.body.classList.toggle("with-weaker", weaker.checked);
if (weaker) {
  weaker.addEventListener("change", show);
  show(); // a browser may have kept the tick
}
