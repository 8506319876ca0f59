import { Empty, Head } from "../lib/ui";

export default function Thread() {
  return (
    <>
      <Head title="Thread" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
