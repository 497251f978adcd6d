'use strict';
// The head of the page, one column a property over all studies, and the studies: texts, boxes and pictures of each.
const DATA = JSON.parse(document.getElementById('gallery-data').textContent);
const META = DATA.meta;
const INDEX = DATA.index;
const COUNT = INDEX.id.length;
const SYSTEMS = META.systems.length;
/** Whether a pseudo box is shown from the start: sure, or weaker and spoken of. */
const isShown = (box) => box[7] === 1;
const HAS_BOXES = !META.structures; // sentences belong to boxes, else to structures
const HELD = document.querySelectorAll('script.study'); // inert until decoded
const ERRORS = META.errors;
const ERROR_NAMES = { missed: 'missed', invented: 'invented', wrong_side: 'wrong side' };
const ERROR_PHRASES = { missed: 'missed', invented: 'invented', wrong_side: 'on the wrong side' };
const VERDICT_NAMES = { match: 'agrees', ...ERROR_NAMES };

/** Decode the texts, boxes and pictures of a study: a few milliseconds. */
const readStudy = (study) => JSON.parse(HELD[study].textContent);

const byId = (id) => document.getElementById(id);

/** Make an element; text is never read as markup. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const className = (index) => META.classes[index][0];
const classColour = (index) => META.classes[index][1];
const studyName = (study) => (INDEX.study[study] ? `Study ${INDEX.study[study]}` : INDEX.id[study]);
const number = (value) => (value === null || value === undefined ? '-' : value.toFixed(3));
const grouped = (value) => value.toLocaleString('en-US');
const named = (count, plural) => (count === 1 ? plural.replace(/ies$/, 'y').replace(/s$/, '') : plural);

/** Names of the classes in a mask. */
function classesIn(mask) {
  return META.classes.map((entry) => entry[0]).filter((_, bit) => mask & (1 << bit));
}

function bitCount(mask) {
  let count = 0;
  for (let rest = mask; rest; rest &= rest - 1) count += 1;
  return count;
}

/** Errors of a study: of one generated report, or of all. */
function errorCount(study, error, system = null) {
  const columns = INDEX.errors[error];
  const chosen = system === null ? columns : [columns[system]];
  return chosen.reduce((sum, column) => sum + bitCount(column[study]), 0);
}

function scoreOf(metric, system, study) {
  return INDEX.scores[metric][system][study] ?? null;
}
