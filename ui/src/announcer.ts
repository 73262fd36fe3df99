// Tells changes of status, and nothing that changes every second, to those who listen to the page.

import { element, setText } from "./elements";

export class Announcer {
  readonly root = element("p", { class: "visually-hidden", role: "status", "aria-live": "polite" });

  say(text: string): void {
    setText(this.root, text);
  }
}
