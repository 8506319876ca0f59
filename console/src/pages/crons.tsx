import { Empty, Head } from "../lib/ui";

export default function Crons() {
  return (
    <>
      <Head title="Crons" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
