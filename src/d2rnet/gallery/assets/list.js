// The list of studies: only the rows in view exist, whatever the number of studies.
const ROW_PX = SYSTEMS > 1 ? 78 : 54; // a line of chips for each generated report
const SPARE_ROWS = 6;
let listed = [];

/** Draw the rows in view. */
function drawRows(current) {
  const list = byId('list');
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - SPARE_ROWS);
  const last = Math.min(listed.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + SPARE_ROWS);
  const rows = byId('rows');
  rows.style.height = `${listed.length * ROW_PX}px`;
  rows.replaceChildren(...listed.slice(first, last).map((study, place) => row(study, first + place, study === current)));
  if (current === null) list.removeAttribute('aria-activedescendant');
  else list.setAttribute('aria-activedescendant', `row-${current}`);
}

function row(study, place, selected) {
  const made = element('div', { id: `row-${study}`, className: 'row', role: 'option' });
  made.setAttribute('aria-selected', String(selected));
  made.setAttribute('aria-setsize', String(listed.length));
  made.setAttribute('aria-posinset', String(place + 1));
  made.style.top = `${place * ROW_PX}px`;
  made.dataset.study = study;
  const order = orderNow();
  const value = order.value && order.key !== 'order' ? order.value(study) : null;
  const shown = value === null ? '' : order.key === 'errors' ? String(value) : value.toFixed(3);
  made.append(
    element('span', { className: 'row-id', textContent: INDEX.study[study] || INDEX.id[study] }, ...imageName(study)),
    element('span', { className: 'row-value', textContent: shown }),
    element('span', { className: 'row-errors' }, ...errorChips(study)),
  );
  return made;
}

/** Beginning of the entry's own id where that is not the study's: a study may have several entries. */
function imageName(study) {
  const id = INDEX.id[study];
  return id === INDEX.study[study] || !INDEX.study[study] ? [] : [element('span', { className: 'row-image', textContent: ` ${id.slice(0, 8)}` })];
}

/** One chip per error type that a study has, those of each generated report together. */
function errorChips(study) {
  const lines = [];
  for (let system = 0; system < SYSTEMS; system += 1) {
    const own = ERRORS.filter((error) => errorCount(study, error, system)).map((error) => {
      const count = errorCount(study, error, system);
      const names = classesIn(INDEX.errors[error][system][study]).join(', ');
      return element('span', { className: `chip ${error}`, textContent: `${count} ${ERROR_NAMES[error]}`, title: names });
    });
    if (!own.length) own.push(element('span', { className: 'chip none', textContent: `no ${META.finding} error` }));
    if (SYSTEMS > 1) own.unshift(element('span', { className: 'chip-system', textContent: 'AB'[system] }));
    lines.push(element('span', { className: 'of-system' }, ...own));
  }
  return lines;
}

function scrollToStudy(study) {
  const place = listed.indexOf(study);
  const list = byId('list');
  if (place < 0) return;
  const top = place * ROW_PX;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW_PX > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_PX - list.clientHeight;
}

/** Wire the list; `show` shows a study, `current` says which one is shown. */
function setUpList(show, current) {
  const list = byId('list');
  list.style.setProperty('--row', `${ROW_PX}px`);
  let asked = false;
  const redraw = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      drawRows(current());
    });
  };
  list.addEventListener('scroll', redraw, { passive: true });
  new ResizeObserver(redraw).observe(list);
  list.addEventListener('click', (event) => {
    const target = event.target.closest('.row');
    if (target) show(Number(target.dataset.study));
  });
}
