import { Empty, Head } from "../lib/ui";

export default function Playground() {
  return (
    <>
      <Head title="Playground" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
