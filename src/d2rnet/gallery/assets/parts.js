// Parts: scripts of a few studies each, loaded when one of them is looked at, the least recent ones forgotten again.
const KEPT_PARTS = 12;
const loaded = new Map();
const waiting = new Map();

window.d2rnetPart = (part, studies) => {
  const request = waiting.get(part);
  waiting.delete(part);
  keep(part, studies);
  if (request) request.resolve(studies);
};

function keep(part, studies) {
  loaded.delete(part);
  loaded.set(part, studies);
  while (loaded.size > KEPT_PARTS) loaded.delete(loaded.keys().next().value);
}

/** Number of the part that holds a study: the last one that starts at or before it. */
function partOf(study) {
  let low = 0;
  let high = INDEX.parts.length - 1;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (INDEX.parts[middle] <= study) low = middle;
    else high = middle - 1;
  }
  return low;
}

function loadPart(part) {
  if (loaded.has(part)) {
    keep(part, loaded.get(part));
    return Promise.resolve(loaded.get(part));
  }
  if (waiting.has(part)) return waiting.get(part).promise;
  const request = {};
  request.promise = new Promise((resolve, reject) => Object.assign(request, { resolve, reject }));
  waiting.set(part, request);
  const name = `parts/${META.build}-${String(part).padStart(5, '0')}.js`;
  const script = element('script', { src: name, onload: () => script.remove() });
  script.onerror = () => {
    script.remove();
    waiting.delete(part);
    request.reject(new Error(`${name} is missing or unreadable. Keep the folder 'parts' of the same build beside index.html.`));
  };
  document.head.append(script);
  return request.promise;
}

/** Load the texts, boxes and pictures of a study. */
async function loadStudy(study) {
  const part = partOf(study);
  const studies = await loadPart(part);
  return studies[study - INDEX.parts[part]];
}

/** Load a study's part while nothing else is to do; a failure shows when the study is looked at. */
function prefetch(study) {
  const idle = window.requestIdleCallback || ((work) => setTimeout(work, 50));
  idle(() => loadPart(partOf(study)).catch(() => {}));
}
