/** Text that users and agents wrote, made fit to be shown. */

const ESCAPE = 0x1b;
const PICTURES = 0x2400;

/** Show control characters, which a terminal would obey, as the signs for them; tabs and line ends stay. */
export function visibleText(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, (sign) => {
    const code = sign.charCodeAt(0);
    return String.fromCharCode(code > ESCAPE + 4 ? 0x2421 : PICTURES + code);
  });
}

/** Return whether an image may be shown: it is part of the message, and of a type that is only an image. */
export function isImage(url: unknown): url is string {
  return typeof url === "string" && /^data:image\/(png|jpeg|gif|webp|avif);base64,/i.test(url);
}
