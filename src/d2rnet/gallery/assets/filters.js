// Which studies are listed, and in which order.
const filters = { text: '', classBit: null, errors: new Set(), differs: false, sort: META.sort, descending: META.mode === 'compare' };
const collator = new Intl.Collator('en', { numeric: true });

/** Orders that can be chosen: key, name, group, value of a study (null goes last). */
function sortOrders() {
  const metrics = Object.keys(INDEX.scores);
  const name = (metric) => META.names[metric] || metric;
  const orders = [
    { key: 'order', name: 'file order', group: '', value: (study) => study },
    { key: 'id', name: 'study id', group: '', value: null },
    { key: 'errors', name: `number of ${META.finding} errors`, group: '', value: (study) => ERRORS.reduce((sum, error) => sum + errorCount(study, error), 0) },
  ];
  if (META.mode === 'compare') {
    const difference = (metric, study) => {
      const [a, b] = [scoreOf(metric, 0, study), scoreOf(metric, 1, study)];
      return a === null || b === null ? null : a - b;
    };
    for (const metric of metrics) {
      const size = (study) => (difference(metric, study) === null ? null : Math.abs(difference(metric, study)));
      orders.push({ key: `size:${metric}`, name: `${name(metric)}, size of the difference`, group: 'Difference', value: size });
    }
    for (const metric of metrics) {
      orders.push({ key: `difference:${metric}`, name: `${name(metric)}, A - B`, group: 'Difference, with its sign', value: (study) => difference(metric, study) });
    }
  }
  META.systems.forEach((system, place) => {
    for (const metric of metrics) {
      const key = META.mode === 'compare' ? `${place}:${metric}` : metric;
      orders.push({ key, name: name(metric), group: META.mode === 'compare' ? system : 'Scores', value: (study) => scoreOf(metric, place, study) });
    }
  });
  return orders;
}
const ORDERS = sortOrders();
const orderNow = () => ORDERS.find((order) => order.key === filters.sort);

function passes(study) {
  const { text, classBit, errors, differs } = filters;
  if (text && !INDEX.id[study].toLowerCase().includes(text) && !INDEX.study[study].toLowerCase().includes(text)) return false;
  if (differs && !differsBetween(study)) return false;
  if (errors.size) {
    const wanted = classBit === null ? ~0 : 1 << classBit;
    return [...errors].some((error) => INDEX.errors[error].some((column) => column[study] & wanted));
  }
  return classBit === null || Boolean(INDEX.named[study] & (1 << classBit));
}

function differsBetween(study) {
  return ERRORS.some((error) => INDEX.errors[error].some((column) => column[study] !== INDEX.errors[error][0][study]));
}

/** Listed studies in their order. */
function listedStudies() {
  const listed = [];
  for (let study = 0; study < COUNT; study += 1) if (passes(study)) listed.push(study);
  const order = orderNow();
  const sign = filters.descending ? -1 : 1;
  if (order.key === 'id') {
    return listed.sort((a, b) => sign * collator.compare(INDEX.study[a], INDEX.study[b]) || a - b);
  }
  const value = new Map(listed.map((study) => [study, order.value(study)]));
  return listed.sort((a, b) => {
    const [first, second] = [value.get(a), value.get(b)];
    if (first === null || second === null) return (first === null) - (second === null) || a - b;
    return sign * (first - second) || a - b;
  });
}

/** Fill the controls and call `changed` whenever one of them is used. */
function setUpFilters(changed) {
  const classes = byId('class');
  classes.append(element('option', { value: '', textContent: 'any' }));
  META.classes
    .map((entry, bit) => [entry[0], bit, INDEX.named.filter((mask) => mask & (1 << bit)).length])
    .sort((a, b) => a[0].localeCompare(b[0]))
    .forEach(([name, bit, count]) => classes.append(element('option', { value: bit, textContent: `${name} (${grouped(count)})`, disabled: !count })));
  classes.onchange = () => changed((filters.classBit = classes.value === '' ? null : Number(classes.value)));
  for (const error of ERRORS) {
    const count = INDEX.id.filter((_, study) => errorCount(study, error)).length;
    addCheck(`${META.a_finding} ${ERROR_PHRASES[error]}`, `error-${error}`, count, (on) => {
      filters.errors[on ? 'add' : 'delete'](error);
      changed();
    });
  }
  if (META.mode === 'compare') {
    const count = INDEX.id.filter((_, study) => differsBetween(study)).length;
    addCheck(`other ${META.finding} errors in A than in B`, 'differs', count, (on) => changed((filters.differs = on)));
  }
  const find = byId('find');
  find.oninput = () => changed((filters.text = find.value.trim().toLowerCase()));
  byId('filters').onsubmit = (event) => event.preventDefault();
  setUpSort(changed);
}

function addCheck(text, id, count, changed) {
  const box = element('input', { type: 'checkbox', id, disabled: !count });
  box.onchange = () => changed(box.checked);
  byId('errors').append(element('label', { className: 'check' }, box, ` ${text} `, element('span', { className: 'number', textContent: grouped(count) })));
}

function setUpSort(changed) {
  const select = byId('sort');
  const groups = new Map();
  for (const order of ORDERS) {
    if (!groups.has(order.group)) groups.set(order.group, order.group ? element('optgroup', { label: order.group }) : select);
    groups.get(order.group).append(element('option', { value: order.key, textContent: order.name }));
  }
  select.append(...[...groups.values()].filter((group) => group !== select));
  select.value = filters.sort;
  select.onchange = () => changed((filters.sort = select.value));
  const direction = byId('direction');
  const show = () => {
    direction.textContent = filters.descending ? 'highest first' : 'lowest first';
    direction.setAttribute('aria-label', `${direction.textContent}; press to turn the order round`);
  };
  direction.onclick = () => {
    filters.descending = !filters.descending;
    show();
    changed();
  };
  show();
}
