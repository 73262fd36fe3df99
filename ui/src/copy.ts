// A text to copy, with the button that copies it.

import { element } from "./elements";

export function copyable(title: string, text: string): HTMLElement {
  const code = element("code", {}, text);
  const button = element("button", { type: "button", "aria-label": `Copy for ${title}` }, "Copy");
  const said = element("span", { role: "status", class: "subtitle" });
  button.addEventListener("click", () => {
    navigator.clipboard.writeText(text).then(
      () => said.replaceChildren("Copied"),
      () => {
        // No clipboard where the page isn't from a secure place: the text is selected instead.
        getSelection()?.selectAllChildren(code);
        said.replaceChildren("Selected: press Ctrl+C");
      },
    );
  });
  return element(
    "div",
    { class: "snippet" },
    element("h3", {}, title),
    // By keyboard it can be scrolled, since it can have the focus.
    element("pre", { tabindex: "0", role: "region", "aria-label": `Configuration for ${title}` }, code),
    button,
    said,
  );
}
