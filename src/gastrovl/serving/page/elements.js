// A tag, its attributes and what it holds, to an element; text stays text, so that no answer becomes markup.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A share in percent; what is almost certain or impossible is not shown as either.
export function percent(share) {
  const value = share * 100;
  if (value >= 99.5 && value < 100) return "> 99 %";
  if (value > 0 && value < 0.05) return "< 0.1 %";
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : value.toFixed(0)} %`;
}
