/** Text that users and agents wrote, made fit to be shown. */

/** What a terminal would obey, and what would turn the text around it: shown as its code. Tabs and line ends stay. */
const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

export function visibleText(text: string): string {
  return text.replace(UNSEEN, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Return whether an image may be shown: it is part of the message, and of a type that is only an image. */
export function isImage(url: unknown): url is string {
  return typeof url === "string" && /^data:image\/(png|jpeg|gif|webp|avif);base64,/i.test(url);
}
