import { Empty, Head } from "../lib/ui";

export default function Audit() {
  return (
    <>
      <Head title="Audit" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
