import { Empty, Head } from "../lib/ui";

export default function Limits() {
  return (
    <>
      <Head title="Limits" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
