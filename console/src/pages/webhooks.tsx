import { Empty, Head } from "../lib/ui";

export default function Webhooks() {
  return (
    <>
      <Head title="Webhooks" />
      <Empty>This page is not there yet.</Empty>
    </>
  );
}
