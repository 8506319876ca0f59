import { Empty, Head } from "../lib/ui";

export default function Runs() {
  return (
    <>
      <Head title="Runs" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
