import { Empty, Head } from "../lib/ui";

export default function Doctor() {
  return (
    <>
      <Head title="Doctor" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
