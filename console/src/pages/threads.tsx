import { Empty, Head } from "../lib/ui";

export default function Threads() {
  return (
    <>
      <Head title="Threads" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
