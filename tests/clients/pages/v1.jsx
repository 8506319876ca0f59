import { useStream } from "@langchain/langgraph-sdk/react";
import { createRoot } from "react-dom/client";
import { Chat, Line, apiUrl, assistantId, useThread } from "./chat.jsx";

// What the widespread chat pages ask for.
const options = { streamMode: ["values"], streamSubgraphs: true, streamResumable: true, onDisconnect: "continue" };
const human = (content) => ({ messages: [{ type: "human", content }] });

function Page() {
  const [threadId, onThreadId] = useThread();
  const stream = useStream({ apiUrl, assistantId, threadId, onThreadId, reconnectOnMount: true, fetchStateHistory: true });
  const line = (message) => {
    const checkpoint = stream.getMessagesMetadata(message)?.firstSeenState?.parent_checkpoint;
    const from = checkpoint && { ...options, checkpoint };
    return message.type === "human" ? (
      <Line message={message} edit={from && ((text) => stream.submit(human(text), from))} />
    ) : (
      <Line message={message} redo={from && (() => stream.submit(undefined, from))} />
    );
  };
  const branches = stream.messages.map((one) => stream.getMessagesMetadata(one)).filter((one) => one?.branchOptions?.length > 1);
  return (
    <>
      <Chat
        messages={stream.messages}
        loading={stream.isLoading}
        error={stream.error}
        interrupt={stream.interrupt}
        send={(text) =>
          stream.submit(human(text), {
            ...options,
            optimisticValues: (before) => ({ ...before, messages: [...(before.messages ?? []), ...human(text).messages] }),
          })
        }
        stop={() => stream.stop()}
        decide={(decision) => stream.submit({}, { command: { resume: { decisions: [decision] } } })}
        line={line}
      />
      {branches[0] && (
        <nav aria-label="branches">
          {branches[0].branchOptions.map((branch, index) => (
            <button key={branch} onClick={() => stream.setBranch(branch)}>Branch {index + 1}</button>
          ))}
        </nav>
      )}
    </>
  );
}

createRoot(document.getElementById("root")).render(<Page />);
