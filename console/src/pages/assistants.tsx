import { Empty, Head } from "../lib/ui";

export default function Assistants() {
  return (
    <>
      <Head title="Assistants" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
