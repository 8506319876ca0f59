import { Empty, Head } from "../lib/ui";

export default function Settings() {
  return (
    <>
      <Head title="Settings" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
