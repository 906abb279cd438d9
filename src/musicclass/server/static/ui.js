// Alpine.js for all pages, with directives and functions for their HTML: x-genre, x-use, $percent(...) and the like.
import Alpine from "./lib/alpine/module.esm.min.js";
import {$, clock, count, percent, probabilityText} from "./dom.js";
import {confidenceText, cssColor} from "./prediction.js";

/** x-genre="genre": a genre's color and, without x-text, its name. */
Alpine.directive("genre", (node, {expression}, {evaluateLater, effect}) => {
  const evaluate = evaluateLater(expression), hasText = node.hasAttribute("x-text");
  node.classList.add("genre");
  effect(() => evaluate(genre => {
    node.style.setProperty("--genre", cssColor(genre));
    if (!hasText) node.textContent = genre ?? "silence";
  }));
});

/** x-use="id": the content of a template. */
Alpine.directive("use", (node, {expression}) => {
  node.append($(expression).content.cloneNode(true));
  [...node.children].forEach(child => Alpine.initTree(child));
});

for (const [name, format] of Object.entries({clock, confidenceText, count, cssColor, percent, probabilityText})) {
  Alpine.magic(name, () => format);
}

/** Once the page has changed: give the focus to `node`, by default what had it, if what has it is gone or hidden. */
export async function restoreFocus(node = document.activeElement, options = {}) {
  await Alpine.nextTick();
  const {activeElement: focused, body} = document;
  if (focused === body || !focused.checkVisibility()) node.focus(options);
}

export default Alpine;
